#include "src/model/weights.hpp"

#include "lolcats/error.hpp"
#include "src/model/uploader.hpp"

namespace lolcats {

namespace {

template <class T>
Matrix<T> load_matrix(const io::Checkpoint& checkpoint, const std::string& name, int rows, int columns,
                      Uploader& uploader) {
    Matrix<T> matrix(uninitialized(name), rows, columns);
    uploader.fill(matrix, [&](std::int64_t first, std::int64_t count, T* out) {
        checkpoint.read_rows(name, {rows, columns}, first, count, out);
    });
    return matrix;
}

template <class Real>
Vector<Real> load_vector(const io::Checkpoint& checkpoint, const std::string& name, int size) {
    Vector<Real> vector(uninitialized(name), size);
    const auto host = Kokkos::create_mirror_view(vector);
    checkpoint.read(name, {size}, host.data());
    Kokkos::deep_copy(vector, host);
    return vector;
}

template <class Real>
Weight<Real> load_weight(const io::Checkpoint& checkpoint, const std::string& name, int outputs, int inputs,
                         bool has_bias, Storage storage, Uploader& uploader) {
    Weight<Real> weight;
    if (storage == Storage::bf16)
        weight.half = load_matrix<BFloat16>(checkpoint, name + ".weight", outputs, inputs, uploader);
    else
        weight.full = load_matrix<Real>(checkpoint, name + ".weight", outputs, inputs, uploader);
    if (has_bias) weight.bias = load_vector<Real>(checkpoint, name + ".bias", outputs);
    return weight;
}

const std::string embedding_name = "model.embed_tokens.weight";

} // namespace

Storage storage_type(const std::string& dtype) {
    if (dtype == "f32") return Storage::full;
    if (dtype == "bf16") return Storage::bf16;
    fail("dtype '{}' is not known: use f32 or bf16", dtype);
}

template <class Real>
LayerWeights<Real> load_layer(const io::Checkpoint& checkpoint, const ModelConfig& config, int layer, Storage storage) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const int width = config.hidden_size;
    Uploader uploader;
    const auto weight = [&](const std::string& name, int outputs, int inputs, bool bias) {
        return load_weight<Real>(checkpoint, prefix + name, outputs, inputs, bias, storage, uploader);
    };
    const auto attention = [&](const std::string& name, int outputs, int inputs) {
        return weight("self_attn." + name, outputs, inputs, config.attention_bias);
    };
    const auto mlp = [&](const std::string& name, int outputs, int inputs) {
        return weight("mlp." + name, outputs, inputs, config.mlp_bias);
    };
    return {
        .input_norm = load_vector<Real>(checkpoint, prefix + "input_layernorm.weight", width),
        .post_attention_norm = load_vector<Real>(checkpoint, prefix + "post_attention_layernorm.weight", width),
        .q = attention("q_proj", config.query_size(), width),
        .k = attention("k_proj", config.kv_size(), width),
        .v = attention("v_proj", config.kv_size(), width),
        .o = attention("o_proj", width, config.query_size()),
        .gate = mlp("gate_proj", config.intermediate_size, width),
        .up = mlp("up_proj", config.intermediate_size, width),
        .down = mlp("down_proj", width, config.intermediate_size),
    };
}

template <class Real>
HeadWeights<Real> load_head(const io::Checkpoint& checkpoint, const ModelConfig& config, Storage storage) {
    HeadWeights<Real> head;
    head.norm = load_vector<Real>(checkpoint, "model.norm.weight", config.hidden_size);
    const std::string name = config.tie_word_embeddings ? embedding_name : "lm_head.weight";
    const std::string stem = name.substr(0, name.size() - std::string(".weight").size());
    Uploader uploader;
    head.lm_head = load_weight<Real>(checkpoint, stem, config.vocab_size, config.hidden_size, false, storage, uploader);
    return head;
}

template <class Real>
void embed(const io::Checkpoint& checkpoint, const ModelConfig& config, Storage storage,
           std::span<const std::int32_t> tokens, const Matrix<Real>& x) {
    const auto host = Kokkos::create_mirror_view(x);
    std::vector<BFloat16> rounded(config.hidden_size);
    for (std::size_t row = 0; row < tokens.size(); ++row) {
        const io::Shape shape{config.vocab_size, config.hidden_size};
        if (storage == Storage::full) {
            checkpoint.read_rows(embedding_name, shape, tokens[row], 1, &host(row, 0));
            continue;
        }
        checkpoint.read_rows(embedding_name, shape, tokens[row], 1, rounded.data());
        for (int j = 0; j < config.hidden_size; ++j) host(row, j) = static_cast<Real>(to_float(rounded[j]));
    }
    Kokkos::deep_copy(x, host);
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template LayerWeights<Real> load_layer<Real>(const io::Checkpoint&, const ModelConfig&, int, Storage);             \
    template HeadWeights<Real> load_head<Real>(const io::Checkpoint&, const ModelConfig&, Storage);                    \
    template void embed<Real>(const io::Checkpoint&, const ModelConfig&, Storage, std::span<const std::int32_t>,       \
                              const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
