#pragma once
/// Shape and constants of a Llama-family decoder, read from the `config.json` of a Hugging Face directory.
#include <filesystem>
#include <optional>
#include <string>

namespace lolcats {

/// RoPE frequency scaling of type "llama3", as transformers computes it. With L = original_max_position_embeddings, a
/// frequency whose wavelength l = 2 pi / frequency (tokens) is below L / high_freq_factor stays; above
/// L / low_freq_factor it is divided by `factor`; in between it changes smoothly from one to the other
/// (kernels/rope.cpp).
struct RopeScaling {
    double factor;
    double low_freq_factor;
    double high_freq_factor;
    double original_max_position_embeddings; ///< tokens
};

struct ModelConfig {
    int hidden_size;       ///< D
    int intermediate_size; ///< F
    int layers;            ///< L
    int heads;             ///< H
    int kv_heads;          ///< H_kv; query head h reads key/value head h / (H / H_kv)
    int head_dim;          ///< d
    int vocab_size;        ///< V
    double rms_norm_eps;   ///< added to the mean square
    double rope_theta;     ///< pair i turns by rope_theta^(-2 i / d) a token
    std::optional<RopeScaling> rope_scaling;
    bool tie_word_embeddings;
    bool attention_bias; ///< q, k, v and o projections have biases
    bool mlp_bias;       ///< gate, up and down projections have biases
    int sliding_window;  ///< longest sequence for which full attention is right; 0: no limit

    [[nodiscard]] int query_size() const { return heads * head_dim; }
    [[nodiscard]] int kv_size() const { return kv_heads * head_dim; }
    [[nodiscard]] int group() const { return heads / kv_heads; }
};

/// Reads DIRECTORY/config.json (or the file itself if `path` names one). Throws Error, which names it, for an
/// architecture, a key or a value that would be computed wrongly.
ModelConfig read_model_config(const std::filesystem::path& path);

} // namespace lolcats
