#include "src/model/adapter.hpp"

#include "io/file.hpp"
#include "io/json.hpp"
#include "kernels/random.hpp"
#include "lolcats/error.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

namespace lolcats {

namespace {

constexpr const char* config_file = "adapter_config.json";
constexpr const char* weights_file = "adapter_model.safetensors";
constexpr const char* base_model_key = "base_model_name_or_path";

using nlohmann::json;

json read_json(const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) fail("{}: no such file; give a PEFT adapter directory", path.string());
    const json value = io::parse_json_or_discard(io::read_file(path));
    if (!value.is_object()) fail("{}: is not a JSON object, or nested too deep; save the adapter again", path.string());
    return value;
}

template <class T>
T get(const json& config, const std::string& key, const std::filesystem::path& path) {
    if (!config.contains(key)) fail("{}: key '{}' is missing; save the adapter with PEFT again", path.string(), key);
    try {
        return config.at(key).get<T>();
    } catch (const json::exception&) {
        fail("{}: key '{}' has a value of the wrong type: {}; save the adapter with PEFT again", path.string(), key,
             config.at(key).dump());
    }
}

/// Keys that change what an adapter computes, and would be left out here, must be at their neutral values.
void refuse_unsupported(const json& config, const std::filesystem::path& path) {
    if (config.value("peft_type", json("LORA")) != "LORA")
        fail("{}: peft_type {} is not supported, only LORA", path.string(), config.at("peft_type").dump());
    if (config.value("bias", json("none")) != "none")
        fail("{}: bias {} is not supported, only \"none\"", path.string(), config.at("bias").dump());
    for (const char* key :
         {"use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save",
          "layers_to_transform", "layer_replication", "layers_pattern", "exclude_modules", "lora_bias",
          "target_parameters", "trainable_token_indices", "use_qalora", "alora_invocation_tokens"}) {
        if (!config.contains(key)) continue;
        const json& value = config.at(key);
        if (value.is_null() || value == false || value.empty()) continue;
        fail("{}: {} = {} is not supported; train the adapter without it", path.string(), key, value.dump());
    }
}

int projection_index(const std::string& module, const std::string& where) {
    for (int i = 0; i < 4; ++i)
        if (module == projection_names[i]) return i;
    fail("{}: module '{}' cannot be adapted; use q_proj, k_proj, v_proj, o_proj", where, module);
}

std::string config_text(const AdapterConfig& adapter, const std::string& base_model) {
    const nlohmann::ordered_json config = {
        {"peft_type", "LORA"},    {"task_type", "CAUSAL_LM"},          {base_model_key, base_model},
        {"r", adapter.form.rank}, {"lora_alpha", adapter.alpha},       {"lora_dropout", adapter.form.dropout},
        {"bias", "none"},         {"target_modules", adapter.modules}, {"fan_in_fan_out", false},
        {"inference_mode", true}};
    return config.dump(2) + "\n";
}

} // namespace

AdapterConfig read_adapter_config(const std::filesystem::path& directory) {
    const auto path = directory / config_file;
    const json config = read_json(path);
    refuse_unsupported(config, path);
    AdapterConfig adapter;
    const double rank = get<double>(config, "r", path); // as an int, 4.5 and 2^32 + 4 would be 4
    adapter.alpha = get<double>(config, "lora_alpha", path);
    adapter.form.dropout = config.contains("lora_dropout") ? get<double>(config, "lora_dropout", path) : 0;
    adapter.modules = get<std::vector<std::string>>(config, "target_modules", path);
    if (!(rank >= 1 && rank <= 65536) || rank != std::floor(rank) || !std::isfinite(adapter.alpha))
        fail("{}: r = {} and lora_alpha = {} are no adapter's; save the adapter again", path.string(), rank,
             adapter.alpha);
    adapter.form.rank = static_cast<int>(rank);
    if (!(adapter.form.dropout >= 0 && adapter.form.dropout < 1))
        fail("{}: lora_dropout = {} is no probability below 1; correct it", path.string(), adapter.form.dropout);
    std::set<int> projections;
    for (const auto& module : adapter.modules)
        if (!projections.insert(projection_index(module, path.string())).second)
            fail("{}: target_modules names {} twice; correct it", path.string(), module);
    adapter.form.scale = adapter.alpha / adapter.form.rank;
    return adapter;
}

AdapterConfig adapter_config(const Options& options) {
    AdapterConfig adapter;
    adapter.form.rank = options.lora_rank;
    adapter.alpha = options.lora_alpha;
    adapter.form.dropout = options.lora_dropout;
    adapter.modules = options.lora_modules;
    if (!options.init_adapter.empty()) {
        const AdapterConfig stored = read_adapter_config(options.init_adapter);
        const auto settle = [&](const std::string& option, auto& value, const auto& from) {
            if (options.is_given(option) && value != from)
                fail("{}: the adapter was made with another --{}; drop the option", options.init_adapter, option);
            value = from;
        };
        settle("lora-rank", adapter.form.rank, stored.form.rank);
        settle("lora-alpha", adapter.alpha, stored.alpha);
        std::vector<std::string> modules = stored.modules;
        std::sort(modules.begin(), modules.end());
        std::sort(adapter.modules.begin(), adapter.modules.end());
        settle("lora-modules", adapter.modules, modules);
        if (!options.is_given("lora-dropout")) adapter.form.dropout = stored.form.dropout;
    }
    adapter.form.scale = adapter.alpha / adapter.form.rank;
    return adapter;
}

Adapter::Adapter(const ModelConfig& config, const AdapterConfig& adapter, Range layers, ParameterSet& parameters)
    : adapter_(adapter), model_layers_(config.layers), layers_(layers), set_(parameters) {
    const std::array<int, 4> inputs{config.hidden_size, config.hidden_size, config.hidden_size, config.query_size()};
    const std::array<int, 4> outputs{config.query_size(), config.kv_size(), config.kv_size(), config.hidden_size};
    const std::int64_t rank = adapter.form.rank;
    for (int layer = layers.begin; layer < layers.end; ++layer) {
        auto& projections = indices_.emplace_back();
        for (const auto& module : adapter.modules) {
            const int i = projection_index(module, "--lora-modules");
            const std::string stem = fmt::format("base_model.model.model.layers.{}.self_attn.{}.", layer, module);
            projections[i] = {.a = parameters.add(stem + "lora_A.weight", {rank, inputs[i]}),
                              .b = parameters.add(stem + "lora_B.weight", {outputs[i], rank}),
                              .inputs = inputs[i],
                              .outputs = outputs[i]};
        }
    }
}

void Adapter::initialize(std::uint64_t seed) const {
    for (int layer = layers_.begin; layer < layers_.end; ++layer)
        for (std::size_t p = 0; p < projection_names.size(); ++p) {
            const Indices& at = indices_[layer - layers_.begin][p];
            if (at.a < 0) continue;
            const double bound = 1 / std::sqrt(at.inputs);
            const std::uint64_t place = mix_bits(static_cast<std::uint64_t>(layer) * projection_names.size() + p + 1);
            const auto values = set_.values(at.a);
            const auto host = Kokkos::create_mirror_view(values);
            for (std::size_t i = 0; i < host.extent(0); ++i)
                host(i) = static_cast<float>(uniform(mix_bits(mix_bits(seed ^ place) + i), bound));
            Kokkos::deep_copy(values, host);
            Kokkos::deep_copy(set_.values(at.b), 0.0F);
        }
}

void Adapter::load(const std::filesystem::path& directory) const {
    const io::SafetensorsFile file(directory / weights_file);
    for (const auto& [name, info] : file.tensors()) require_known(name, file.path().string());
    for (int i = 0; const auto& entry : set_.entries()) {
        const auto values = set_.values(i++);
        if (!entry.name.starts_with("base_model.")) continue;
        const auto host = Kokkos::create_mirror_view(values);
        file.read(entry.name, entry.shape, host.data());
        if (!io::all_finite(host.data(), host.extent(0)))
            fail("{}: tensor {} holds values that are not finite; train the adapter again", file.path().string(),
                 entry.name);
        Kokkos::deep_copy(values, host);
    }
}

void Adapter::require_known(const std::string& tensor, const std::string& file) const {
    const std::regex layout(R"(base_model\.model\.model\.layers\.(\d{1,6})\.self_attn\.(\w{1,16})\.lora_[AB]\.weight)");
    std::smatch parts;
    const bool known = std::regex_match(tensor, parts, layout) && std::stoi(parts[1]) < model_layers_ &&
                       std::find(adapter_.modules.begin(), adapter_.modules.end(), parts[2]) != adapter_.modules.end();
    if (!known)
        fail("{}: tensor {} belongs to nothing that {} adapts and would be left out; train the adapter without it",
             file, io::printable(tensor), config_file);
}

LayerLora<float> Adapter::layer(int layer) const {
    LayerLora<float> lora;
    for (std::size_t p = 0; p < projection_names.size(); ++p) {
        const Indices& at = indices_[layer - layers_.begin][p];
        if (at.a < 0) continue;
        lora[p] = {.a = Matrix<float>(set_.values(at.a).data(), adapter_.form.rank, at.inputs),
                   .b = Matrix<float>(set_.values(at.b).data(), at.outputs, adapter_.form.rank),
                   .a_gradients = set_.gradients(at.a),
                   .b_gradients = set_.gradients(at.b)};
    }
    return lora;
}

std::filesystem::path adapter_weights(const std::filesystem::path& directory) {
    return directory / weights_file;
}

std::filesystem::path trained_maps(const std::filesystem::path& directory) {
    return directory / "feature_maps.safetensors";
}

bool has_adapter_config(const std::filesystem::path& directory, const AdapterConfig& adapter) {
    const auto path = directory / config_file;
    if (!std::filesystem::exists(path)) return false;
    json found = io::parse_json_or_discard(io::read_file(path));
    if (!found.is_object()) return false;
    found[base_model_key] = "";
    return found == json::parse(config_text(adapter, ""));
}

void write_adapter(const std::filesystem::path& directory, const AdapterConfig& adapter, const std::string& base_model,
                   const std::vector<NamedArray<float>>& arrays, std::map<std::string, std::string> metadata) {
    io::create_directories(directory);
    std::vector<io::TensorToWrite> tensors;
    for (const auto& array : arrays)
        if (array.name.starts_with("base_model."))
            tensors.push_back({array.name, io::DType::f32, array.shape, array.values.data()});
    // The configuration is written first and appears last: a disk that fills up must not leave new weights beside an
    // old rank and alpha.
    const auto path = directory / config_file;
    const std::string text = config_text(adapter, base_model);
    metadata["format"] = "pt";
    io::write_file_atomically(path, [&](int fd) {
        io::write_all(fd, text.data(), text.size(), path);
        io::write_safetensors(directory / weights_file, tensors, metadata);
    });
}

} // namespace lolcats
