#include "src/stages/adaptation.hpp"

#include "io/json.hpp"
#include "lolcats/error.hpp"
#include "src/stages/form_notices.hpp"
#include "src/stages/run_identity.hpp"
#include "src/stages/softmax_layers.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

using nlohmann::json;

std::string described(const FeatureMapFiles* maps) {
    return maps == nullptr ? "untrained ones" : "those of " + maps->path();
}

/// The maps that stage 1 left beside an adapter whose maps went on training would give another model. Maps that do not
/// say where they are from, as others write them, may be the right ones.
void require_maps_trained_along(const std::string& adapter, const std::string& settings, const FeatureMapFiles* maps) {
    const std::string own = maps == nullptr ? "" : maps->metadata("settings");
    if (own == settings) return;
    const std::string text = fmt::format(
        "{}: this adapter was trained together with its feature maps, which {} are not", adapter, described(maps));
    if (maps == nullptr || !own.empty()) fail("{}: give --feature-maps {}", text, trained_maps(adapter).string());
    if (Communicator::world().rank() == 0) spdlog::warn("{}, or do not say so", text);
}

/// `content`: of the maps that the adapter was trained with. Not an Error: maps that were written anew, by another
/// program or as one file, may be the same. Hashing all of a large model's maps takes a second, so one rank does.
void warn_of_other_maps(const std::string& adapter, const std::string& content, const FeatureMapFiles* maps) {
    if (Communicator::world().rank() != 0) return;
    if (content_identity(maps == nullptr ? std::vector<std::filesystem::path>() : maps->files()) != content)
        spdlog::warn("{}: this adapter was trained with other feature maps than {}: give those with --feature-maps, or "
                     "train it anew",
                     adapter, described(maps));
}

/// By what the adapter's file says of its training, if it does.
void check_maps_of(const std::string& adapter, const FeatureMapFiles* maps) {
    const auto metadata = io::SafetensorsFile(adapter_weights(adapter)).metadata();
    const auto found = metadata.find("settings");
    const json settings = found == metadata.end() ? json() : io::parse_json_or_discard(found->second);
    if (!settings.is_object()) return;
    const json content = settings.value("feature-maps", json());
    if (settings.value("train-feature-maps", json()) == true)
        require_maps_trained_along(adapter, found->second, maps);
    else if (content.is_string())
        warn_of_other_maps(adapter, content, maps);
}

} // namespace

Adaptation adaptation(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps) {
    Adaptation result;
    if (options.attention == "teacher" && (maps != nullptr || !options.adapter.empty()))
        fail("--attention teacher has no use for --feature-maps and --adapter; choose terrace, sliding or none");
    if (options.attention == "teacher") return result;
    result.form = student_form(options, config, maps);
    if (maps != nullptr && Communicator::world().rank() == 0) warn_of_assumed_form(options, *maps, *result.form);
    if (!options.adapter.empty()) {
        result.adapter = read_adapter_config(options.adapter);
        result.adapter.form.dropout = 0;
        check_maps_of(options.adapter, maps);
    }
    result.softmax_layers = softmax_layers(options, config, maps, options.adapter);
    return result;
}

} // namespace lolcats
