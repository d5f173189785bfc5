/// Gradients of a whole adapted layer with the loss on top, in float64 against central finite differences.
#include "src/model/decoder_layer.hpp"
#include "src/model/lm_head.hpp"
#include "tests/model/small_config.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace lolcats {
namespace {

constexpr int batch = 2;
constexpr int length = 13;
constexpr int rank = 2;
constexpr int feature_dim = 3;

Matrix<double> random_matrix(int rows, int columns, unsigned seed, double scale) {
    return test::matrix<double>(rows, columns,
                                test::random_values(static_cast<std::size_t>(rows) * columns, seed, scale));
}

Vector<double> random_vector(int size, unsigned seed, double scale, double mean) {
    auto numbers = test::random_values(size, seed, scale);
    for (double& x : numbers) x += mean;
    return test::vector<double>(numbers);
}

Weight<double> random_weight(int outputs, int inputs, unsigned seed) {
    Weight<double> weight;
    weight.full = random_matrix(outputs, inputs, seed, 0.7 / std::sqrt(inputs));
    return weight;
}

Vector<double> random_norm(int width, unsigned seed) {
    return random_vector(width, seed, 0.1, 1);
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

LowRank<double> random_low_rank(int outputs, int inputs, unsigned seed) {
    return {.a = random_matrix(rank, inputs, seed, 0.3),
            .b = random_matrix(outputs, rank, seed + 1, 0.3),
            .a_gradients = Vector<double>("da", rank * inputs),
            .b_gradients = Vector<double>("db", outputs * rank)};
}

AdaptedLayer<double> random_adaptation(const ModelConfig& c, FeatureMapKind map, int f) {
    const auto random_map = [&](unsigned seed) {
        const std::size_t size = static_cast<std::size_t>(c.heads) * c.head_dim * f;
        return test::filled<Tensor3<double>>(test::random_values(size, seed, 0.35), c.heads, c.head_dim, f);
    };
    const auto random_bias = [&](unsigned seed) {
        return has_bias(map) ? random_vector(c.heads, seed, 0.3, 0.3) : Vector<double>("no_bias", c.heads);
    };
    AdaptedLayer<double> layer;
    layer.student = {random_map(20), random_map(21), random_bias(22), random_bias(23),
                     random_vector(c.heads, 24, 0.6, 0)};
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
    RopeTable<double> rope{rope_form(config), length};
    Gemm<double> gemm{Arithmetic::exact};
    LayerWeights<double> weights = random_layer(config);
    AdaptedLayer<double> layer = random_adaptation(config, form.map, f);
    LmHead<double> head{config, {random_norm(config.hidden_size, 10), random_weight(config.vocab_size, 12, 11)}, gemm};
    AdaptedDecoder<double> decoder{{config, rope, gemm}, shape, form, lora};
    DropoutStreams streams{5, 6};
    Matrix<double> input = random_matrix(batch * length, config.hidden_size, 12, 0.6);
    Vector<std::int32_t> labels{"labels", batch* length};
    Vector<std::int32_t> predicted{"predicted", batch* length};

    void SetUp() override {
        layer.softmax = GetParam().softmax;
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
            const Matrix<double> other = random_matrix(batch * length, config.hidden_size, 13, 0.6);
            decoder.forward(shape, weights, layer, streams, other, record(keep));
        }
        decoder.backward(shape, weights, layer, streams, mine, x, entered);
        return x;
    }

    /// The gradient with respect to `x`, which the loss depends on, against central differences at some places.
    template <class View>
    void expect_gradient(const std::string& what, const View& x, const std::vector<double>& gradient) {
        std::vector<double> at = test::values(x);
        const auto set = [&] { std::copy(at.begin(), at.end(), x.data()); };
        const auto loss_there = [&] {
            set();
            return loss();
        };
        const auto places = test::spread_indices(at.size(), 24);
        const auto expected = test::central_differences(loss_there, at, places);
        set();
        EXPECT_TRUE(test::close(test::picked(gradient, places), expected, 1e-7)) << what;
    }
};

TEST_P(AdaptedDecoderGradient, AgreesWithFiniteDifferences) {
    const Matrix<double> dx = gradients();
    const auto& student = layer.student;
    const auto& sums = layer.student_gradients;
    expect_gradient("x", input, test::values(dx));
    expect_gradient("q_map", student.q_map, test::values(sums.q_map));
    expect_gradient("k_map", student.k_map, test::values(sums.k_map));
    if (has_bias(form.map)) {
        expect_gradient("q_bias", student.q_bias, test::values(sums.q_bias));
        expect_gradient("k_bias", student.k_bias, test::values(sums.k_bias));
    }
    if (form.near != NearKeys::none) expect_gradient("g", student.window_factors, test::values(sums.window_factors));
    for (int p = 0; p < 4; ++p) {
        const auto& update = layer.lora[p];
        expect_gradient(std::string(projection_names[p]) + ".A", update.a, test::values(update.a_gradients));
        expect_gradient(std::string(projection_names[p]) + ".B", update.b, test::values(update.b_gradients));
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
