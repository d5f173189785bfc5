#include "kernels/feature_maps.hpp"

#include "lolcats/error.hpp"

namespace lolcats {

FeatureMapKind feature_map_kind(const std::string& name) {
    for (const auto kind : all_feature_maps)
        if (name == feature_map_name(kind)) return kind;
    fail("feature map '{}' is not known: use one of {}", name, fmt::join(feature_map_names(), ", "));
}

const char* feature_map_name(FeatureMapKind kind) {
    return with_feature_map(kind, [](auto map) { return map.name; });
}

std::vector<std::string> feature_map_names() {
    std::vector<std::string> names;
    for (const auto kind : all_feature_maps) names.emplace_back(feature_map_name(kind));
    return names;
}

} // namespace lolcats
