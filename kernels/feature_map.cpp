#include "kernels/feature_map.hpp"

#include "lolcats/error.hpp"

#include <array>
#include <utility>

namespace lolcats {

namespace {

constexpr std::array<std::pair<const char*, FeatureMapKind>, 6> names = {{
    {"hedgehog", FeatureMapKind::hedgehog},
    {"hedgehog_half", FeatureMapKind::hedgehog_half},
    {"t2r", FeatureMapKind::t2r},
    {"exp_dim", FeatureMapKind::exp_dim},
    {"exp_dim_half", FeatureMapKind::exp_dim_half},
    {"pos_elu", FeatureMapKind::pos_elu},
}};

} // namespace

FeatureMapKind feature_map_kind(const std::string& name) {
    for (const auto& [known, kind] : names)
        if (name == known) return kind;
    fail("feature map '{}' is not known: use hedgehog, hedgehog_half, t2r, exp_dim, exp_dim_half or pos_elu", name);
}

const char* feature_map_name(FeatureMapKind kind) {
    for (const auto& [name, known] : names)
        if (kind == known) return name;
    return "";
}

} // namespace lolcats
