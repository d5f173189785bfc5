#include "src/model/weights.hpp"

#include "lolcats/error.hpp"
#include "src/model/embedding.hpp"
#include "src/model/uploader.hpp"

#include <algorithm>

namespace lolcats {

namespace {

/// Loads arrays one after the other. Shared ones travel while the next are read.
class WeightLoader {
public:
    explicit WeightLoader(const WeightSource& source) : source_(source) {}

    template <class T>
    Matrix<T> matrix(const std::string& name, int rows, int columns) {
        Matrix<T> matrix(uninitialized(name), rows, columns);
        if (source_.reads())
            uploader_.fill(matrix, [&](std::int64_t first, std::int64_t count, T* out) {
                source_.checkpoint.read_rows(name, {rows, columns}, first, count, out);
            });
        hand_out(matrix);
        return matrix;
    }

    template <class Real>
    Vector<Real> vector(const std::string& name, int size) {
        Vector<Real> vector(uninitialized(name), size);
        if (source_.reads()) {
            const auto host = Kokkos::create_mirror_view(vector);
            source_.checkpoint.read(name, {size}, host.data());
            Kokkos::deep_copy(vector, host);
        }
        hand_out(vector);
        return vector;
    }

    /// Read in pieces, so that no copy of a whole matrix is kept in another type.
    ScaledFloat8 float8_matrix(const std::string& name, int rows, int columns) {
        constexpr std::size_t piece_bytes = std::size_t{32} << 20;
        const ScaledFloat8 matrix(name, rows, columns);
        if (source_.reads()) {
            const auto most = static_cast<int>(std::max<std::size_t>(1, piece_bytes / (columns * sizeof(float))));
            const Matrix<float> buffer(uninitialized("weight_rows"), std::min(most, rows), columns);
            for (int first = 0; first < rows; first += most) {
                const int count = std::min(most, rows - first);
                const auto piece = first_rows(buffer, count);
                uploader_.fill(piece, [&](std::int64_t row, std::int64_t number, float* out) {
                    source_.checkpoint.read_rows(name, {rows, columns}, first + row, number, out);
                });
                round_to_float8(piece, matrix.rows(first, count));
                Kokkos::fence("the rows are read and may be overwritten");
            }
        }
        hand_out(matrix.values);
        hand_out(matrix.scales);
        return matrix;
    }

    template <class Real>
    Weight<Real> weight(const std::string& name, int outputs, int inputs, bool has_bias, Storage storage) {
        Weight<Real> weight;
        if (storage == Storage::fp8)
            weight.float8 = float8_matrix(name + ".weight", outputs, inputs);
        else if (storage == Storage::bf16)
            weight.half = matrix<BFloat16>(name + ".weight", outputs, inputs);
        else
            weight.full = matrix<Real>(name + ".weight", outputs, inputs);
        if (has_bias) weight.bias = vector<Real>(name + ".bias", outputs);
        return weight;
    }

    /// Returns when all of them are there.
    void finish() {
        if (source_.sharing != nullptr) source_.sharing->finish();
    }

private:
    template <class Array>
    void hand_out(const Array& array) {
        if (source_.sharing != nullptr)
            source_.sharing->hand_out(array.data(), array.size() * sizeof(typename Array::value_type));
    }

    const WeightSource& source_;
    Uploader uploader_;
};

} // namespace

Storage storage_type(const std::string& dtype) {
    if (dtype == "f32") return Storage::full;
    if (dtype == "bf16") return Storage::bf16;
    if (dtype == "fp8") return Storage::fp8;
    fail("dtype '{}' is not known: use f32, bf16 or fp8", dtype);
}

template <class Real>
LayerWeights<Real> load_layer(const WeightSource& source, const ModelConfig& config, int layer, Storage storage) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const int width = config.hidden_size;
    WeightLoader load(source);
    const auto attention = [&](const std::string& name, int outputs, int inputs) {
        return load.weight<Real>(prefix + "self_attn." + name, outputs, inputs, config.attention_bias, storage);
    };
    const auto mlp = [&](const std::string& name, int outputs, int inputs) {
        return load.weight<Real>(prefix + "mlp." + name, outputs, inputs, config.mlp_bias, storage);
    };
    LayerWeights<Real> weights{
        .input_norm = load.vector<Real>(prefix + "input_layernorm.weight", width),
        .post_attention_norm = load.vector<Real>(prefix + "post_attention_layernorm.weight", width),
        .q = attention("q_proj", config.query_size(), width),
        .k = attention("k_proj", config.kv_size(), width),
        .v = attention("v_proj", config.kv_size(), width),
        .o = attention("o_proj", width, config.query_size()),
        .gate = mlp("gate_proj", config.intermediate_size, width),
        .up = mlp("up_proj", config.intermediate_size, width),
        .down = mlp("down_proj", width, config.intermediate_size),
    };
    load.finish();
    return weights;
}

template <class Real>
std::vector<LayerWeights<Real>> load_layers(const WeightSource& source, const ModelConfig& config, Range layers,
                                            Storage storage) {
    std::vector<LayerWeights<Real>> weights;
    for (int layer = layers.begin; layer < layers.end; ++layer)
        weights.push_back(load_layer<Real>(source, config, layer, storage));
    return weights;
}

template <class Real>
HeadWeights<Real> load_head(const WeightSource& source, const ModelConfig& config, Storage storage) {
    const std::string name = config.tie_word_embeddings ? embedding_name : "lm_head.weight";
    const std::string stem = name.substr(0, name.size() - std::string(".weight").size());
    WeightLoader load(source);
    HeadWeights<Real> head;
    head.norm = load.vector<Real>("model.norm.weight", config.hidden_size);
    head.lm_head = load.weight<Real>(stem, config.vocab_size, config.hidden_size, false,
                                     storage == Storage::fp8 ? Storage::bf16 : storage);
    load.finish();
    return head;
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template LayerWeights<Real> load_layer<Real>(const WeightSource&, const ModelConfig&, int, Storage);               \
    template std::vector<LayerWeights<Real>> load_layers<Real>(const WeightSource&, const ModelConfig&, Range,         \
                                                               Storage);                                               \
    template HeadWeights<Real> load_head<Real>(const WeightSource&, const ModelConfig&, Storage);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
