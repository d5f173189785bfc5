#include "tools/bench/block/random_weights.hpp"

#include "kernels/random.hpp"

#include <algorithm>
#include <cmath>

namespace lolcats::bench {

namespace {

/// Uniform in [-1, 1).
KOKKOS_INLINE_FUNCTION float random_value(std::uint64_t stream, std::size_t index) {
    return static_cast<float>(uniform(mix_bits(stream + index), 1));
}

Vector<float> ones(int size) {
    Vector<float> vector(uninitialized("norm"), size);
    Kokkos::deep_copy(vector, 1.0F);
    return vector;
}

/// Rounded from rows that are all of it that is there in float.
ScaledFloat8 random_float8(int outputs, int inputs, double scale, std::uint64_t stream) {
    constexpr int most = 1024;
    const ScaledFloat8 weight("weight", outputs, inputs);
    const Matrix<float> buffer(uninitialized("weight_rows"), std::min(most, outputs), inputs);
    for (int first = 0; first < outputs; first += most) {
        const int count = std::min(most, outputs - first);
        fill(first_rows(buffer, count), scale, mix_bits(stream) + static_cast<std::uint64_t>(first));
        round_to_float8(first_rows(buffer, count), weight.rows(first, count));
    }
    Kokkos::fence("the rows are read");
    return weight;
}

} // namespace

void fill(const Matrix<BFloat16>& matrix, double scale, std::uint64_t stream) {
    BFloat16* out = matrix.data();
    const auto bound = static_cast<float>(scale * std::sqrt(3.0));
    const std::uint64_t start = mix_bits(stream);
    Kokkos::parallel_for(
        "random_weights", Kokkos::RangePolicy<Execution, Kokkos::IndexType<std::int64_t>>(0, matrix.size()),
        KOKKOS_LAMBDA(std::int64_t i) {
            out[i] = to_bfloat16(bound * random_value(start, static_cast<std::size_t>(i)));
        });
}

void fill(const Matrix<float>& matrix, double scale, std::uint64_t stream) {
    float* out = matrix.data();
    const auto bound = static_cast<float>(scale * std::sqrt(3.0));
    const std::uint64_t start = mix_bits(stream);
    Kokkos::parallel_for(
        "random_inputs", Kokkos::RangePolicy<Execution, Kokkos::IndexType<std::int64_t>>(0, matrix.size()),
        KOKKOS_LAMBDA(std::int64_t i) {
            out[i] = to_float(to_bfloat16(bound * random_value(start, static_cast<std::size_t>(i))));
        });
}

Weight<float> random_weight(int outputs, int inputs, std::uint64_t stream, Storage storage) {
    const double scale = 1 / std::sqrt(static_cast<double>(inputs));
    Weight<float> weight;
    if (storage == Storage::fp8) {
        weight.float8 = random_float8(outputs, inputs, scale, stream);
    } else {
        weight.half = Matrix<BFloat16>(uninitialized("weight"), outputs, inputs);
        fill(weight.half, scale, stream);
    }
    return weight;
}

std::vector<LayerWeights<float>> random_layers(const ModelConfig& m, int layers, Storage storage) {
    std::vector<LayerWeights<float>> all;
    for (int layer = 0; layer < layers; ++layer) {
        std::uint64_t stream = 16 * static_cast<std::uint64_t>(layer);
        const auto weight = [&](int outputs, int inputs) { return random_weight(outputs, inputs, stream++, storage); };
        all.push_back({.input_norm = ones(m.hidden_size),
                       .post_attention_norm = ones(m.hidden_size),
                       .q = weight(m.query_size(), m.hidden_size),
                       .k = weight(m.kv_size(), m.hidden_size),
                       .v = weight(m.kv_size(), m.hidden_size),
                       .o = weight(m.hidden_size, m.query_size()),
                       .gate = weight(m.intermediate_size, m.hidden_size),
                       .up = weight(m.intermediate_size, m.hidden_size),
                       .down = weight(m.hidden_size, m.intermediate_size)});
    }
    return all;
}

HeadWeights<float> random_head(const ModelConfig& model) {
    return {ones(model.hidden_size), random_weight(model.vocab_size, model.hidden_size, ~std::uint64_t{0})};
}

} // namespace lolcats::bench
