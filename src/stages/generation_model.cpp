#include "src/stages/generation_model.hpp"

#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/stages/run_identity.hpp"
#include "src/stages/softmax_layers.hpp"

#include <nlohmann/json.hpp>

namespace lolcats {

namespace {

const std::string& required_model(const Options& options) {
    if (options.model.empty()) fail("--model is missing: give the teacher's Hugging Face directory");
    return options.model;
}

std::optional<FeatureMapFiles> feature_maps(const Options& options) {
    if (options.feature_maps.empty()) return std::nullopt;
    return FeatureMapFiles(options.feature_maps);
}

} // namespace

GenerationModel::GenerationModel(const Options& options)
    : options_(options), config_(read_model_config(required_model(options))), checkpoint_(options.model),
      storage_(storage_type(options.dtype)), embedding_(checkpoint_, config_, storage_), maps_(feature_maps(options)),
      adaptation_(adaptation(options, config_, maps_ ? &*maps_ : nullptr)) {
    if (!adaptation_.softmax_layers.empty())
        fail("layers {} keep softmax attention, which lolcats_generate has no state for: give an adapter trained "
             "without --keep-softmax-layers",
             to_text(adaptation_.softmax_layers));
}

io::SessionIdentity GenerationModel::identity(const Communicator& world) const {
    nlohmann::ordered_json settings;
    if (adaptation_.form)
        for (const auto& [key, value] : form_metadata(*adaptation_.form, false))
            if (key != "format" && key != "tie-feature-maps") settings[key] = value;
    settings["dtype"] = options_.dtype;
    settings["feature maps"] = content_identity(maps_ ? maps_->files() : std::vector<std::filesystem::path>());
    if (!maps_) settings["feature-map-init"] = fmt::format("{} {}", options_.feature_map_init, options_.seed);
    settings["adapter"] = options_.adapter.empty() ? "none" : content_identity({adapter_weights(options_.adapter)});
    return {model_identity(checkpoint_, world), settings.dump(), run_deck(options_, "lolcats_generate").dump()};
}

RecurrentWeights<float> GenerationModel::load() {
    const Range all{0, config_.layers};
    RecurrentWeights<float> weights;
    weights.layers = load_layers<float>(checkpoint_, config_, all, storage_);
    weights.adapted.resize(weights.layers.size());
    weights.head = load_head<float>(checkpoint_, config_, storage_);
    weights.student = adaptation_.form;
    weights.lora = adaptation_.adapter.form;
    if (adaptation_.form) load_adaptation(weights.adapted);
    return weights;
}

void GenerationModel::load_adaptation(std::vector<AdaptedLayer<float>>& layers) {
    const Range all{0, config_.layers};
    students_.emplace(config_, *adaptation_.form, all, false, parameters_);
    if (adaptation_.adapter.form.rank > 0) adapter_.emplace(config_, adaptation_.adapter, all, parameters_);
    parameters_.allocate(false);
    students_->initialize(options_.feature_map_init, options_.seed);
    if (maps_) students_->load(*maps_);
    if (adapter_) adapter_->load(options_.adapter);
    for (int i = 0; i < config_.layers; ++i) {
        layers[i].student = students_->parameters(i);
        if (adapter_) layers[i].lora = adapter_->layer(i);
    }
}

void GenerationModel::embed(std::span<const std::int32_t> tokens, const Matrix<float>& x) {
    embedding_.rows(tokens, x);
}

} // namespace lolcats
