/// What the random cases of the other files pass by: hand-worked values, extreme windows and sizes, exact equalities.
#include "kernels/transfer_loss.hpp"
#include "lolcats/error.hpp"
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lolcats::test {
namespace {

class AttentionEdges : public testing::TestWithParam<NearKeys> {};

INSTANTIATE_TEST_SUITE_P(Near, AttentionEdges, testing::ValuesIn(all_near_keys),
                         [](const auto& info) { return name(info.param); });

/// One head of one dimension: query 4 of a terrace with w = 1 has keys 3 and 4 near, keys 0 to 2 far, and the single
/// feature of each half makes every phi . phi exactly 2. The answer fits on one line.
TEST(Backward, GradientThroughTheMaximumWorkedByHand) {
    const StudentCase c{{.batch = 1, .length = 5, .heads = 1, .kv_heads = 1, .head_dim = 1},
                        {NearKeys::terrace, 1, FeatureMapKind::hedgehog, 1, false}};
    const std::vector<double> k = {0.3, -0.2, 0.7, 0.5, 1.25};
    const std::vector<double> v = {1, -2, 0.5, 3, -1};
    const NaiveInputs in{.q = {0.1, 0.2, 0.3, 0.4, 0.75},
                         .k = k,
                         .v = v,
                         .q_map = {0.5},
                         .k_map = {-0.25},
                         .q_bias = {0},
                         .k_bias = {0},
                         .g = {0.4}};
    const double gamma = 1 / (1 + std::exp(-0.4));
    const double q = in.q[4];
    const double e = std::exp(q * (k[3] - k[4])); // k[4] has the larger score, so its own exponential is 1
    const double normalizer = gamma * (1 + e) + 3 * 2;
    const double y = (gamma * (v[4] + e * v[3]) + 2 * (v[0] + v[1] + v[2])) / normalizer;
    const double ds = gamma * e * (v[3] - y) / normalizer;

    const StudentRun<double> run(c, in);
    EXPECT_TRUE(close(values(run.y).back(), y, 1e-14));
    EXPECT_TRUE(close(values(run.normalizer).back(), normalizer, 1e-14));
    const NaiveInputs gradients = all_gradients(run, {0, 0, 0, 0, 1}).sums;
    EXPECT_TRUE(close(gradients.q, {0, 0, 0, 0, ds * (k[3] - k[4])}, 1e-14));
    EXPECT_TRUE(close(gradients.k, {0, 0, 0, ds * q, -ds * q}, 1e-14));
    const double far = 2 / normalizer;
    EXPECT_TRUE(close(gradients.v, {far, far, far, gamma * e / normalizer, gamma / normalizer}, 1e-14));
    const double dgamma = ((v[4] - y) + e * (v[3] - y)) / normalizer;
    EXPECT_TRUE(close(gradients.g, {dgamma * gamma * (1 - gamma)}, 1e-13));
    // Were the maximum only a stabiliser, k[4] would get this instead.
    EXPECT_FALSE(close(gradients.k[4], gamma * q * (v[4] - y) / normalizer, 1e-2));
}

/// The central difference across a kink is the mean of its two slopes: half the gradient for each of two tied keys.
TEST_P(AttentionEdges, EachOfTwoTiedKeysGetsHalf) {
    const StudentCase c{{.batch = 1, .length = 24, .heads = 1, .kv_heads = 1, .head_dim = 4},
                        {GetParam(), 6, FeatureMapKind::hedgehog, 3, false}};
    NaiveInputs in = random_inputs(c, 200);
    for (int n = 0; n + 1 < c.shape.length; n += 2)
        for (int j = 0; j < 4; ++j) in.k[(n + 1) * 4 + j] = in.k[n * 4 + j];
    const auto dy = random_values(c.rows() * c.query_width(), 201);
    const auto gradients = all_gradients(StudentRun<double>(c, in), dy).sums;
    const auto loss = [&] { return inner_product(dy, naive_student(c.shape, c.form, in).y); };
    // One-sided curvatures differ, so the error is of first order in the step.
    EXPECT_TRUE(close(gradients.k, central_differences(loss, in.k, 1e-7), 1e-6));
}

/// All keys equal: every near score ties, whatever their number.
TEST_P(AttentionEdges, AllKeysTied) {
    const StudentCase c{{.batch = 1, .length = 19, .heads = 1, .kv_heads = 1, .head_dim = 4},
                        {GetParam(), 4, FeatureMapKind::hedgehog, 3, true}};
    NaiveInputs in = random_inputs(c, 210);
    for (std::size_t i = 4; i < in.k.size(); ++i) in.k[i] = in.k[i % 4];
    const auto dy = random_values(c.rows() * c.query_width(), 211);
    const auto gradients = all_gradients(StudentRun<double>(c, in), dy).sums;
    const auto loss = [&] { return inner_product(dy, naive_student(c.shape, c.form, in).y); };
    EXPECT_TRUE(close(gradients.q, central_differences(loss, in.q), 1e-6));
    EXPECT_TRUE(close(gradients.v, central_differences(loss, in.v), 1e-6));
    EXPECT_TRUE(close(gradients.g,
                      c.form.near == NearKeys::none ? std::vector<double>{0} : central_differences(loss, in.g), 1e-6));
}

/// Windows of one key, windows that divide nothing, one longer than the sequence; grouped and ungrouped heads; sizes
/// that fill vector registers and sizes that do not.
TEST_P(AttentionEdges, BackwardAtExtremeWindowsAndSizes) {
    struct Shape {
        int length, window, heads, kv_heads, head_dim, feature_dim;
    };
    for (const Shape& s : {Shape{1, 4, 1, 1, 3, 2}, Shape{9, 1, 2, 2, 4, 3}, Shape{10, 64, 2, 1, 5, 2},
                           Shape{16, 4, 4, 2, 16, 8}, Shape{23, 5, 3, 1, 17, 9}, Shape{40, 16, 1, 1, 64, 32}}) {
        const StudentCase c{
            {.batch = 2, .length = s.length, .heads = s.heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim},
            {GetParam(), s.window, FeatureMapKind::hedgehog, s.feature_dim, false}};
        NaiveInputs in = random_inputs(c, 220);
        const auto dy = random_values(c.rows() * c.query_width(), 221);
        const StudentRun<double> run(c, in);
        EXPECT_TRUE(close(values(run.y), naive_student(c.shape, c.form, in).y, 1e-11));
        const NaiveInputs actual = all_gradients(run, dy).sums;
        const auto loss = [&] { return inner_product(dy, naive_student(c.shape, c.form, in).y); };
        const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient, const char* array) {
            // Prime to the row lengths, so that all columns and positions are visited.
            const auto places = spread_indices(x.size(), 29);
            EXPECT_TRUE(close(picked(gradient, places), central_differences(loss, x, places), 1e-6))
                << array << ", T " << s.length << ", w " << s.window << ", d " << s.head_dim;
        };
        check(in.q, actual.q, "q");
        check(in.k, actual.k, "k");
        check(in.v, actual.v, "v");
        check(in.q_map, actual.q_map, "q_map");
        check(in.k_map, actual.k_map, "k_map");
        if (GetParam() != NearKeys::none) check(in.g, actual.g, "g");
    }
}

StudentCase batch_of_two(NearKeys near, FeatureMapKind map) {
    return {{.batch = 2, .length = 45, .heads = 4, .kv_heads = 2, .head_dim = 16}, {near, 8, map, 16, true}};
}

/// Both overloads and every map: leaving the input gradients out must not move a bit of the others.
TEST_P(AttentionEdges, OverloadsAgreeBitForBit) {
    for (const auto map : all_feature_maps) {
        const StudentCase c = batch_of_two(GetParam(), map);
        const StudentRun<float> run(c, random_inputs(c, 230));
        const auto dy = random_values(c.rows() * c.query_width(), 231);
        const auto with = all_gradients(run, dy).by_head;
        const auto without = run.parameter_gradients(dy);
        EXPECT_EQ(values(with.q_map), values(without.q_map)) << feature_map_name(map);
        EXPECT_EQ(values(with.k_map), values(without.k_map)) << feature_map_name(map);
        EXPECT_EQ(values(with.q_bias), values(without.q_bias)) << feature_map_name(map);
        EXPECT_EQ(values(with.k_bias), values(without.k_bias)) << feature_map_name(map);
        EXPECT_EQ(values(with.window_factors), values(without.window_factors)) << feature_map_name(map);
    }
}

TEST_P(AttentionEdges, FrozenParametersLeaveTheInputGradientsAsTheyAre) {
    for (const auto map : all_feature_maps) {
        const StudentCase c = batch_of_two(GetParam(), map);
        const StudentRun<float> run(c, random_inputs(c, 235));
        const auto dy = random_values(c.rows() * c.query_width(), 236);
        const auto trained = input_gradients(run, dy, run.zero_gradients());
        const auto frozen = input_gradients(run, dy, StudentGradients<float>());
        EXPECT_EQ(values(frozen.q), values(trained.q)) << feature_map_name(map);
        EXPECT_EQ(values(frozen.k), values(trained.k)) << feature_map_name(map);
        EXPECT_EQ(values(frozen.v), values(trained.v)) << feature_map_name(map);
    }
}

TEST_P(AttentionEdges, ParameterGradientsAreAdded) {
    const StudentCase c{{.batch = 1, .length = 30, .heads = 2, .kv_heads = 1, .head_dim = 6},
                        {GetParam(), 4, FeatureMapKind::t2r, 6, false}};
    const StudentRun<double> run(c, random_inputs(c, 240));
    const auto dy = random_values(c.rows() * c.query_width(), 241);
    const auto once = parameter_sums(c.shape, run.parameter_gradients(dy));
    const auto gradients = run.parameter_gradients(dy);
    student_attention_backward(c.shape, run.student(), run.inputs(), run.outputs(),
                               matrix<double>(c.rows(), c.query_width(), dy), gradients);
    auto twice = parameter_sums(c.shape, gradients);
    for (auto* array : {&twice.q_map, &twice.k_map, &twice.q_bias, &twice.k_bias, &twice.g})
        for (double& x : *array) x /= 2;
    EXPECT_TRUE(close(twice.q_map, once.q_map, 1e-13));
    EXPECT_TRUE(close(twice.k_map, once.k_map, 1e-13));
    EXPECT_TRUE(close(twice.q_bias, once.q_bias, 1e-12));
    EXPECT_TRUE(close(twice.k_bias, once.k_bias, 1e-12));
    EXPECT_TRUE(close(twice.g, once.g, 1e-12));
    gradients.set_zero();
    EXPECT_TRUE(close(values(gradients.q_map), std::vector<double>(gradients.q_map.size()), 0));
    EXPECT_TRUE(close(values(gradients.window_factors), std::vector<double>(gradients.window_factors.size()), 0));
}

/// A sequence gives the same bits alone as in a batch, forward and backward: micro-batches may be cut anywhere.
TEST_P(AttentionEdges, SequencesOfABatchDoNotTouchEachOther) {
    const StudentCase both{{.batch = 2, .length = 50, .heads = 2, .kv_heads = 1, .head_dim = 16},
                           {GetParam(), 8, FeatureMapKind::hedgehog, 8, false}};
    StudentCase alone = both;
    alone.shape.batch = 1;
    const NaiveInputs in = random_inputs(both, 250);
    NaiveInputs second = in;
    const auto last_half = [](std::vector<double>& x) {
        x.erase(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2));
    };
    for (auto* array : {&second.q, &second.k, &second.v}) last_half(*array);
    auto dy = random_values(both.rows() * both.query_width(), 251);
    const StudentRun<float> batch(both, in);
    const auto batch_gradients = batch.parameter_gradients(dy);
    const StudentRun<float> single(alone, second);
    last_half(dy);
    const auto gradients = single.parameter_gradients(dy);
    const auto second_half = [&](auto view) {
        auto x = values(view);
        last_half(x);
        return x;
    };
    EXPECT_EQ(values(single.y), second_half(batch.y));
    EXPECT_EQ(values(gradients.q_map), second_half(batch_gradients.q_map));
    EXPECT_EQ(values(gradients.k_map), second_half(batch_gradients.k_map));
    EXPECT_EQ(values(gradients.window_factors), second_half(batch_gradients.window_factors));
}

/// Later keys and values must not be seen.
TEST_P(AttentionEdges, IsCausal) {
    const StudentCase c{{.batch = 1, .length = 40, .heads = 2, .kv_heads = 1, .head_dim = 8},
                        {GetParam(), 8, FeatureMapKind::hedgehog, 4, false}};
    NaiveInputs in = random_inputs(c, 260);
    const auto before = values(StudentRun<double>(c, in).y);
    constexpr int changed = 21;
    for (std::size_t i = changed * c.kv_width(); i < in.k.size(); ++i) in.k[i] = in.v[i] = 100;
    auto after = values(StudentRun<double>(c, in).y);
    EXPECT_NE(before, after);
    for (auto y = before; const std::size_t i : spread_indices(changed * c.query_width(), after.size()))
        ASSERT_EQ(after[i], y[i]) << "query " << i / c.query_width();
}

/// A NaN anywhere in the past must come out, not be swallowed by a clamp or a maximum.
TEST_P(AttentionEdges, NaNComesOut) {
    const StudentCase c{{.batch = 1, .length = 40, .heads = 1, .kv_heads = 1, .head_dim = 8},
                        {GetParam(), 8, FeatureMapKind::hedgehog, 4, false}};
    NaiveInputs in = random_inputs(c, 270);
    in.k[3] = std::nan("");
    const StudentRun<float> run(c, in);
    EXPECT_TRUE(std::isnan(values(run.y).back()));
    EXPECT_TRUE(std::isnan(values(run.y).front()));
}

/// Scores of several hundred: no overflow anywhere, and the answer is still that of the formulas.
TEST_P(AttentionEdges, LargeScoresStayFinite) {
    const StudentCase c{{.batch = 1, .length = 40, .heads = 1, .kv_heads = 1, .head_dim = 8},
                        {GetParam(), 8, FeatureMapKind::hedgehog, 4, false}};
    NaiveInputs in = random_inputs(c, 280);
    for (auto* array : {&in.q, &in.k})
        for (double& x : *array) x *= 16;
    EXPECT_TRUE(close(values(StudentRun<float>(c, in).y), naive_student(c.shape, c.form, in).y, 1e-4));
    EXPECT_TRUE(close(values(StudentRun<double>(c, in).y), naive_student(c.shape, c.form, in).y, 1e-10));
}

TEST(SoftmaxAttention, FloatAtUsualHeadSizes) {
    for (const int d : {4, 16, 64})
        for (const int length : {1, 65, 130, 300}) {
            const StudentCase c{{.batch = 2, .length = length, .heads = 4, .kv_heads = 2, .head_dim = d},
                                {NearKeys::terrace, 16, FeatureMapKind::hedgehog, 4, false}};
            const NaiveInputs in = random_inputs(c, 290);
            const auto expected = naive_teacher(c.shape, in);
            const auto y = poisoned<float>(c.rows(), c.query_width());
            const auto log_sum = poisoned<float>(c.statistic_rows(), length);
            const AttentionInputs<float> inputs{matrix<float>(c.rows(), c.query_width(), in.q),
                                                matrix<float>(c.rows(), c.kv_width(), in.k),
                                                matrix<float>(c.rows(), c.kv_width(), in.v)};
            softmax_attention(c.shape, inputs, {y, log_sum});
            EXPECT_TRUE(close(values(y), expected.y, 2e-6)) << "d " << d << ", T " << length;
            EXPECT_TRUE(close(values(log_sum), expected.statistics, 1e-6)) << "d " << d << ", T " << length;
        }
}

TEST(SumHeadGroups, AddsTheHeadsThatShareAKey) {
    const AttentionShape shape{.batch = 1, .length = 2, .heads = 4, .kv_heads = 2, .head_dim = 1};
    const auto out = poisoned<float>(2, 2);
    sum_head_groups(shape, matrix<float>(2, 4, {1, 2, 3, 4, 10, 20, 30, 40}), out);
    EXPECT_TRUE(close(values(out), {3, 7, 30, 70}, 0));
}

/// Float cross-entropy: with the constants of the method, close to the reference in double.
TEST_P(AttentionEdges, FloatCrossEntropyAgreesWithDouble) {
    const StudentCase c{{.batch = 2, .length = 70, .heads = 4, .kv_heads = 2, .head_dim = 16},
                        {GetParam(), 16, FeatureMapKind::hedgehog, 8, false}};
    const NaiveInputs in = random_inputs(c, 300);
    const auto teacher = naive_teacher(c.shape, in);
    const auto run_in = [&]<class Real>(Real) {
        const StudentRun<Real> run(c, in);
        const auto log_sum = matrix<Real>(c.statistic_rows(), c.shape.length, teacher.statistics);
        const auto gradients = run.zero_gradients();
        const double loss = attention_cross_entropy(c.shape, run.student(), run.inputs(),
                                                    {EntropyKeys::all, log_sum, run.normalizer}, Real(0.01), gradients);
        return std::pair(loss, parameter_sums(c.shape, gradients));
    };
    const auto [loss, gradients] = run_in(1.0F);
    const auto [exact_loss, exact_gradients] = run_in(1.0);
    EXPECT_TRUE(close(exact_loss, naive_attention_cross_entropy(c.shape, c.form, in).loss, 1e-11));
    EXPECT_TRUE(close(loss, exact_loss, 1e-5));
    EXPECT_TRUE(close(gradients.q_map, exact_gradients.q_map, 2e-5));
    EXPECT_TRUE(close(gradients.k_map, exact_gradients.k_map, 2e-5));
    if (GetParam() != NearKeys::none) {
        EXPECT_TRUE(close(gradients.g, exact_gradients.g, 2e-5));
    }
}

TEST(Names, AreReadAndWrittenAndWrongOnesRefused) {
    for (const auto kind : all_feature_maps) EXPECT_EQ(feature_map_kind(feature_map_name(kind)), kind);
    for (const auto near : all_near_keys) {
        EXPECT_EQ(near_keys(name(near)), near);
        EXPECT_EQ(near_keys_name(near), name(near));
    }
    EXPECT_THROW(feature_map_kind("hedgehogs"), Error);
    EXPECT_THROW(near_keys("teacher"), Error);
}

} // namespace
} // namespace lolcats::test
