#include "src/stages/adaptation.hpp"

#include "lolcats/error.hpp"
#include "src/stages/softmax_layers.hpp"

namespace lolcats {

Adaptation adaptation(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps) {
    Adaptation result;
    if (options.attention == "teacher" && (maps != nullptr || !options.adapter.empty()))
        fail("--attention teacher has no use for --feature-maps and --adapter; choose terrace, sliding or none");
    if (options.attention == "teacher") return result;
    result.form = student_form(options, config, maps);
    if (!options.adapter.empty()) {
        result.adapter = read_adapter_config(options.adapter);
        result.adapter.form.dropout = 0;
    }
    result.softmax_layers = softmax_layers(options, config, maps, options.adapter);
    return result;
}

} // namespace lolcats
