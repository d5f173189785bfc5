#include "lolcats/model_config.hpp"

#include "io/file.hpp"
#include "io/json.hpp"
#include "lolcats/error.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace lolcats {
namespace {

using Json = nlohmann::json;

constexpr int largest_size = 1 << 24;
constexpr int largest_count = 1 << 16;

/// Keys that the reader uses. Every other one must be harmless, or empty.
const std::set<std::string> used_keys = {
    "architectures",
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "vocab_size",
};

/// Keys that do not change what the frozen decoder computes: tokens, generation, training, bookkeeping.
const std::set<std::string> harmless_keys = {
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "do_sample",
    "dtype",
    "early_stopping",
    "eos_token_id",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "max_position_embeddings",
    "max_sequence_length",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "repetition_penalty",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_cache",
};

/// null, false, 0, "", [] and {} switch nothing on.
bool is_nothing(const Json& value) {
    if (value.is_number()) return value.get<double>() == 0;
    if (value.is_boolean()) return !value.get<bool>();
    if (value.is_string()) return value.get_ref<const std::string&>().empty();
    return value.empty(); // null counts as empty
}

/// An object of the file whose values are checked as they are read. A key whose value is null counts as missing.
class Section {
public:
    Section(std::string where, const Json& json) : where_(std::move(where)), json_(json) {}

    [[nodiscard]] const std::string& where() const { return where_; }
    [[nodiscard]] const Json& json() const { return json_; }

    [[nodiscard]] const Json* find(const std::string& key) const {
        const auto found = json_.find(key);
        return found == json_.end() || found->is_null() ? nullptr : &*found;
    }

    [[nodiscard]] int integer(const std::string& key, int least, int most, std::optional<int> missing = {}) const {
        const Json* value = find(key);
        if (value == nullptr && missing) return *missing;
        const Json& given = require(value, key);
        // The comparison in doubles is exact for what may pass, and huge unsigned values do not wrap around.
        if (!given.is_number_integer() || given.get<double>() < least || given.get<double>() > most) {
            fail("{}: {} is {}, but must be an integer from {} to {}", where_, key, brief(given), least, most);
        }
        return given.get<int>();
    }

    [[nodiscard]] double positive(const std::string& key, std::optional<double> missing = {}) const {
        const Json* value = find(key);
        if (value == nullptr && missing) return *missing;
        const Json& given = require(value, key);
        if (!given.is_number() || !(given.get<double>() > 0) || !std::isfinite(given.get<double>())) {
            fail("{}: {} is {}, but must be a number greater than 0", where_, key, brief(given));
        }
        return given.get<double>();
    }

    [[nodiscard]] bool flag(const std::string& key) const {
        const Json* value = find(key);
        if (value == nullptr) return false;
        if (!value->is_boolean()) fail("{}: {} is {}, but must be true or false", where_, key, brief(*value));
        return value->get<bool>();
    }

    [[nodiscard]] std::string text(const std::string& key, const std::string& missing) const {
        const Json* value = find(key);
        if (value == nullptr) return missing;
        if (!value->is_string()) fail("{}: {} is {}, but must be a string", where_, key, brief(*value));
        return value->get<std::string>();
    }

    /// The value in one line that fits in a message.
    [[nodiscard]] static std::string brief(const Json& value) {
        std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
        return text.size() <= 60 ? text : text.substr(0, 57) + "...";
    }

private:
    [[nodiscard]] const Json& require(const Json* value, const std::string& key) const {
        if (value == nullptr)
            fail("{}: {} is missing: this does not look like a Llama-family model; give one", where_, key);
        return *value;
    }

    std::string where_;
    const Json& json_;
};

void refuse(const Section& section, const std::string& key, const std::string& why) {
    fail("{}: {} is {}: {}", section.where(), key, Section::brief(section.json().at(key)), why);
}

Json load(const std::filesystem::path& file) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored)) {
        fail("{}: cannot read this file: give the Hugging Face directory of the model", file.string());
    }
    try {
        Json json = io::parse_json(io::read_file(file), file.string(), "download the model's config.json again");
        if (!json.is_object()) fail("{}: not a JSON object: download the model's config.json again", file.string());
        return json;
    } catch (const Json::exception& problem) {
        fail("{}: not valid JSON ({}): download the model's config.json again", file.string(), problem.what());
    }
}

/// True for Mistral, false for Llama.
bool check_family(const Section& config) {
    const std::string type = config.text("model_type", "");
    if (type != "llama" && type != "mistral") {
        fail("{}: model_type is '{}': only llama and mistral are computed by this program", config.where(), type);
    }
    const std::string expected = type == "llama" ? "LlamaForCausalLM" : "MistralForCausalLM";
    if (const Json* names = config.find("architectures"); names != nullptr && *names != Json::array({expected})) {
        refuse(config, "architectures", fmt::format("only [\"{}\"] is computed by this program", expected));
    }
    const std::string activation = config.text("hidden_act", "silu");
    if (activation != "silu") refuse(config, "hidden_act", "only silu is computed by this program");
    return type == "mistral";
}

void check_other_keys(const Section& config) {
    for (const auto& [key, value] : config.json().items()) {
        if (used_keys.contains(key) || harmless_keys.contains(key) || key.starts_with('_') || is_nothing(value))
            continue;
        if (key == "quantization_config") {
            refuse(config, key, "quantised weights cannot be read: use the unquantised model");
        }
        if (key == "auto_map") refuse(config, key, "a model with code of its own cannot be computed rightly");
        refuse(config, key,
               "it is not known to this program and would be computed wrongly; remove the key if it does not change "
               "the model");
    }
    if (const Json* types = config.find("layer_types"); types != nullptr) {
        const auto is_full = [](const Json& type) { return type == "full_attention"; };
        if (!types->is_array() || !std::all_of(types->begin(), types->end(), is_full)) {
            refuse(config, "layer_types", "only full_attention in every layer is computed by this program");
        }
    }
}

void check_rotary_fraction(const Section& section) {
    if (section.positive("partial_rotary_factor", 1) != 1) {
        refuse(section, "partial_rotary_factor", "only 1, rotation of whole heads, is computed by this program");
    }
}

/// Refuses parameters of rotary embeddings that the given type does not have.
void check_rope_keys(const Section& rope, const std::set<std::string>& known) {
    for (const auto& [key, value] : rope.json().items()) {
        if (!known.contains(key) && !is_nothing(value)) {
            refuse(rope, key, "it is not known to this program and would be computed wrongly");
        }
    }
}

std::optional<RopeScaling> read_scaling(const Section& rope) {
    const std::string legacy = rope.text("type", "default");
    const std::string type = rope.text("rope_type", legacy);
    if (rope.find("type") != nullptr && legacy != type) refuse(rope, "type", fmt::format("but rope_type is {}", type));
    check_rotary_fraction(rope);
    std::set<std::string> known = {"type", "rope_type", "rope_theta", "partial_rotary_factor"};
    if (type == "default") {
        check_rope_keys(rope, known);
        return std::nullopt;
    }
    if (type != "llama3") {
        fail("{}: the rotary embedding's type is '{}': only default and llama3 are computed by this program",
             rope.where(), type);
    }
    known.insert({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    check_rope_keys(rope, known);
    const RopeScaling scaling{rope.positive("factor"), rope.positive("low_freq_factor"),
                              rope.positive("high_freq_factor"), rope.positive("original_max_position_embeddings")};
    if (scaling.factor < 1) refuse(rope, "factor", "it must be at least 1");
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
        refuse(rope, "high_freq_factor", "it must be greater than low_freq_factor");
    }
    return scaling;
}

/// Older files have rope_theta and rope_scaling, newer ones rope_parameters that holds both.
void read_rope(const Section& config, ModelConfig& model) {
    check_rotary_fraction(config);
    const Json* newer = config.find("rope_parameters");
    const Json* older = config.find("rope_scaling");
    if (newer != nullptr && older != nullptr && *newer != *older) {
        refuse(config, "rope_scaling", "but rope_parameters says otherwise: keep one of them");
    }
    model.rope_theta = config.positive("rope_theta", 10000.0); // the default of both families
    const Json* given = newer != nullptr ? newer : older;
    if (given == nullptr) return;
    const char* key = newer != nullptr ? "rope_parameters" : "rope_scaling";
    if (!given->is_object()) refuse(config, key, "it must be an object or null");
    const Section rope(fmt::format("{}, {}", config.where(), key), *given);
    if (rope.find("rope_theta") != nullptr) {
        const double theta = rope.positive("rope_theta");
        if (config.find("rope_theta") != nullptr && theta != model.rope_theta) {
            refuse(rope, "rope_theta", fmt::format("but outside {} it is {}", key, model.rope_theta));
        }
        model.rope_theta = theta;
    }
    model.rope_scaling = read_scaling(rope);
}

void read_sizes(const Section& config, bool is_mistral, ModelConfig& model) {
    model.hidden_size = config.integer("hidden_size", 1, largest_size);
    model.intermediate_size = config.integer("intermediate_size", 1, largest_size);
    model.layers = config.integer("num_hidden_layers", 1, largest_count);
    model.heads = config.integer("num_attention_heads", 1, largest_count);
    // Llama files from before grouped queries have no such key; Mistral's default is a number that nothing here shows.
    model.kv_heads = is_mistral ? config.integer("num_key_value_heads", 1, largest_count)
                                : config.integer("num_key_value_heads", 1, largest_count, model.heads);
    model.vocab_size = config.integer("vocab_size", 1, largest_size);
    if (model.heads % model.kv_heads != 0) {
        fail("{}: num_attention_heads {} is not a multiple of num_key_value_heads {}: download the model's config.json "
             "again",
             config.where(), model.heads, model.kv_heads);
    }
    if (config.find("head_dim") == nullptr && model.hidden_size % model.heads != 0) {
        fail("{}: hidden_size {} is not a multiple of num_attention_heads {} and there is no head_dim: add it",
             config.where(), model.hidden_size, model.heads);
    }
    model.head_dim = config.integer("head_dim", 1, 4096, model.hidden_size / model.heads);
    if (model.head_dim < 2 || model.head_dim % 2 != 0) {
        fail("{}: the head dimension is {}: rotary embeddings need an even one; give another model", config.where(),
             model.head_dim);
    }
}

} // namespace

ModelConfig read_model_config(const std::filesystem::path& path) {
    std::error_code ignored;
    const bool is_directory = std::filesystem::is_directory(path, ignored);
    const std::filesystem::path file = is_directory ? path / "config.json" : path;
    const Json json = load(file);
    const Section config(file.string(), json);
    const bool is_mistral = check_family(config);
    check_other_keys(config);
    ModelConfig model{};
    read_sizes(config, is_mistral, model);
    read_rope(config, model);
    model.rms_norm_eps = config.positive("rms_norm_eps", 1e-6);
    model.tie_word_embeddings = config.flag("tie_word_embeddings");
    model.attention_bias = config.flag("attention_bias");
    model.mlp_bias = config.flag("mlp_bias");
    if (is_mistral) {
        if (model.attention_bias) refuse(config, "attention_bias", "Mistral has no biases");
        if (model.mlp_bias) refuse(config, "mlp_bias", "Mistral has no biases");
        // null means full attention; a file without the key has the family's default window of 4096.
        const bool is_absent = !json.contains("sliding_window");
        model.sliding_window = config.integer("sliding_window", 1, largest_size * 16, is_absent ? 4096 : 0);
    } else if (const Json* window = config.find("sliding_window"); window != nullptr && !is_nothing(*window)) {
        refuse(config, "sliding_window",
               "Llama has no window: it is not known how to compute this; remove the key if the model has none");
    }
    return model;
}

} // namespace lolcats
