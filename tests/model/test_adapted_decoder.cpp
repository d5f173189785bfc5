/// Gradients of a whole adapted layer with the loss on top, in float64 against central finite differences.
#include "kernels/dropout.hpp"
#include "src/model/decoder_layer.hpp"
#include "src/model/lm_head.hpp"
#include "tests/model/small_config.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace lolcats {
namespace {

constexpr int batch = 2;
constexpr int length = 13;
constexpr int rank = 2;
constexpr int feature_dim = 3;

double random_value(std::uint64_t stream, std::size_t i) {
    return static_cast<double>(mix_bits(mix_bits(stream) + i) >> 11) * 0x1.0p-52 - 1;
}

template <class View>
void fill(const View& view, std::uint64_t stream, double scale, double shift = 0) {
    for (std::size_t i = 0; i < view.size(); ++i) view.data()[i] = shift + scale * random_value(stream, i);
}

Weight<double> random_weight(int outputs, int inputs, std::uint64_t stream) {
    Weight<double> weight;
    weight.full = Matrix<double>("weight", outputs, inputs);
    fill(weight.full, stream, 1.2 / std::sqrt(inputs));
    return weight;
}

Vector<double> random_norm(int width, std::uint64_t stream) {
    Vector<double> norm("norm", width);
    fill(norm, stream, 0.2, 1);
    return norm;
}

LayerWeights<double> random_layer(const ModelConfig& c) {
    return {.input_norm = random_norm(c.hidden_size, 1),
            .post_attention_norm = random_norm(c.hidden_size, 2),
            .q = random_weight(c.query_size(), c.hidden_size, 3),
            .k = random_weight(c.kv_size(), c.hidden_size, 4),
            .v = random_weight(c.kv_size(), c.hidden_size, 5),
            .o = random_weight(c.hidden_size, c.query_size(), 6),
            .gate = random_weight(c.intermediate_size, c.hidden_size, 7),
            .up = random_weight(c.intermediate_size, c.hidden_size, 8),
            .down = random_weight(c.hidden_size, c.intermediate_size, 9)};
}

LowRank<double> random_low_rank(int outputs, int inputs, std::uint64_t stream) {
    LowRank<double> update{.a = Matrix<double>("a", rank, inputs),
                           .b = Matrix<double>("b", outputs, rank),
                           .a_gradients = Vector<double>("da", rank * inputs),
                           .b_gradients = Vector<double>("db", outputs * rank)};
    fill(update.a, stream, 0.5);
    fill(update.b, stream + 1, 0.5);
    return update;
}

AdaptedLayer<double> random_adaptation(const ModelConfig& c, FeatureMapKind map, int f) {
    AdaptedLayer<double> layer;
    layer.student = {Tensor3<double>("q_map", c.heads, c.head_dim, f), Tensor3<double>("k_map", c.heads, c.head_dim, f),
                     Vector<double>("q_bias", c.heads), Vector<double>("k_bias", c.heads),
                     Vector<double>("window_factors", c.heads)};
    fill(layer.student.q_map, 20, 0.6);
    fill(layer.student.k_map, 21, 0.6);
    if (has_bias(map)) {
        fill(layer.student.q_bias, 22, 0.5, 0.3);
        fill(layer.student.k_bias, 23, 0.5, 0.3);
    }
    fill(layer.student.window_factors, 24, 1);
    const auto weights = static_cast<std::size_t>(c.heads * c.head_dim * f);
    const std::size_t heads = c.heads;
    layer.student_gradients = {Vector<double>("dq_map", weights), Vector<double>("dk_map", weights),
                               Vector<double>("dq_bias", heads), Vector<double>("dk_bias", heads),
                               Vector<double>("dg", heads)};
    layer.lora = {random_low_rank(c.query_size(), c.hidden_size, 30), random_low_rank(c.kv_size(), c.hidden_size, 32),
                  random_low_rank(c.kv_size(), c.hidden_size, 34), random_low_rank(c.hidden_size, c.query_size(), 36)};
    return layer;
}

struct Case {
    std::string name;
    NearKeys near;
    FeatureMapKind map;
    bool affine;
    bool softmax = false;
};

class AdaptedDecoderGradient : public ::testing::TestWithParam<Case> {
protected:
    ModelConfig config = test::small_config(1);
    int f = is_square(GetParam().map) ? config.head_dim : feature_dim;
    AttentionShape shape = attention_shape(config, batch, length);
    StudentForm form{GetParam().near, 3, GetParam().map, f, GetParam().affine};
    LoraForm lora{.rank = rank, .scale = 1.5, .dropout = 0.25};
    RopeTable<double> rope{config, length};
    Gemm<double> gemm{Arithmetic::exact};
    LayerWeights<double> weights = random_layer(config);
    AdaptedLayer<double> layer = random_adaptation(config, form.map, f);
    LmHead<double> head{config, {random_norm(config.hidden_size, 10), random_weight(config.vocab_size, 12, 11)}, gemm};
    AdaptedDecoder<double> decoder{{config, rope, gemm}, shape, form, lora};
    DropoutStreams streams{5, 6};
    Matrix<double> input{"input", batch* length, 12};
    Vector<std::int32_t> labels{"labels", batch* length};
    Vector<std::int32_t> predicted{"predicted", batch* length};

    void SetUp() override {
        layer.softmax = GetParam().softmax;
        fill(input, 12, 1);
        for (int i = 0; i < batch * length; ++i) labels(i) = i % 4 == 3 ? unlabelled : i * 7 % config.vocab_size;
    }

    double loss() {
        const Matrix<double> x("x", batch * length, config.hidden_size);
        Kokkos::deep_copy(x, input);
        decoder.forward(shape, weights, layer, streams, x);
        return head.loss(x, labels, predicted).loss;
    }

    LayerRecord<double> record(bool keep) {
        return {Matrix<double>("entered", batch * length, config.hidden_size),
                keep ? decoder.activations_to_keep() : LayerActivations<double>()};
    }

    /// `keep`: the activations, for the backward pass. `between`: another micro-batch passes between the two passes.
    Matrix<double> gradients(bool keep = false, bool between = false, InputGradient entered = InputGradient::wanted) {
        const Matrix<double> x("x", batch * length, config.hidden_size);
        Kokkos::deep_copy(x, input);
        const auto mine = record(keep);
        decoder.forward(shape, weights, layer, streams, x, mine);
        head.loss_and_gradient(x, labels, 1.0, predicted);
        if (between) {
            const Matrix<double> other("other", batch * length, config.hidden_size);
            fill(other, 13, 1);
            decoder.forward(shape, weights, layer, streams, other, record(keep));
        }
        decoder.backward(shape, weights, layer, streams, mine, x, entered);
        return x;
    }

    /// Compares every `stride`-th element of a gradient with a central difference.
    void expect_gradient(const std::string& what, double* values, std::size_t count, const double* gradient) {
        const std::size_t stride = count > 24 ? count / 24 : 1;
        for (std::size_t i = 0; i < count; i += stride) {
            constexpr double h = 1e-5;
            const double kept = values[i];
            values[i] = kept + h;
            const double above = loss();
            values[i] = kept - h;
            const double below = loss();
            values[i] = kept;
            const double numeric = (above - below) / (2 * h);
            const double error = std::abs(numeric - gradient[i]);
            EXPECT_TRUE(error <= 1e-6 * (1 + std::abs(numeric)))
                << what << "[" << i << "]: " << gradient[i] << ", by differences " << numeric;
        }
    }
};

TEST_P(AdaptedDecoderGradient, AgreesWithFiniteDifferences) {
    const Matrix<double> dx = gradients();
    const auto& student = layer.student;
    const auto& sums = layer.student_gradients;
    expect_gradient("x", input.data(), input.size(), dx.data());
    expect_gradient("q_map", student.q_map.data(), student.q_map.size(), sums.q_map.data());
    expect_gradient("k_map", student.k_map.data(), student.k_map.size(), sums.k_map.data());
    if (has_bias(form.map)) {
        expect_gradient("q_bias", student.q_bias.data(), student.q_bias.size(), sums.q_bias.data());
        expect_gradient("k_bias", student.k_bias.data(), student.k_bias.size(), sums.k_bias.data());
    }
    if (form.near != NearKeys::none)
        expect_gradient("g", student.window_factors.data(), student.window_factors.size(), sums.window_factors.data());
    for (int p = 0; p < 4; ++p) {
        const auto& update = layer.lora[p];
        expect_gradient(std::string(projection_names[p]) + ".A", update.a.data(), update.a.size(),
                        update.a_gradients.data());
        expect_gradient(std::string(projection_names[p]) + ".B", update.b.data(), update.b.size(),
                        update.b_gradients.data());
    }
}

TEST_P(AdaptedDecoderGradient, FoundKeptAndRecomputedActivationsGiveTheSameBits) {
    const auto& sums = layer.lora[q_proj].a_gradients;
    const auto bits = [&](bool keep, bool between) {
        Kokkos::deep_copy(sums, 0.0);
        const Matrix<double> dx = gradients(keep, between);
        std::vector<double> all(dx.data(), dx.data() + dx.size());
        all.insert(all.end(), sums.data(), sums.data() + sums.size());
        return all;
    };
    const auto recomputed = bits(false, true);
    EXPECT_EQ(bits(false, false), recomputed);
    EXPECT_EQ(bits(true, false), recomputed);
    EXPECT_EQ(bits(true, true), recomputed);
}

TEST_P(AdaptedDecoderGradient, OfTheFirstLayerNeedsNoInputGradient) {
    const auto bits = [&](InputGradient entered) {
        std::vector<double> all;
        for (const auto& update : layer.lora)
            for (const auto& sums : {update.a_gradients, update.b_gradients}) Kokkos::deep_copy(sums, 0.0);
        gradients(true, false, entered);
        for (const auto& update : layer.lora)
            for (const auto& sums : {update.a_gradients, update.b_gradients})
                all.insert(all.end(), sums.data(), sums.data() + sums.size());
        return all;
    };
    EXPECT_EQ(bits(InputGradient::unused), bits(InputGradient::wanted));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, AdaptedDecoderGradient,
    ::testing::Values(Case{"terrace_hedgehog", NearKeys::terrace, FeatureMapKind::hedgehog, false},
                      Case{"terrace_hedgehog_affine", NearKeys::terrace, FeatureMapKind::hedgehog, true},
                      Case{"sliding_exp_dim", NearKeys::sliding, FeatureMapKind::exp_dim, false},
                      Case{"sliding_t2r", NearKeys::sliding, FeatureMapKind::t2r, false},
                      Case{"none_pos_elu", NearKeys::none, FeatureMapKind::pos_elu, false},
                      Case{"softmax_kept", NearKeys::terrace, FeatureMapKind::hedgehog, false, true},
                      Case{"none_hedgehog", NearKeys::none, FeatureMapKind::hedgehog, false}),
    [](const auto& info) { return info.param.name; });

} // namespace
} // namespace lolcats
