/// The losses of attention transfer: values against the T x T form, gradients against its central differences.
#include "kernels/transfer_loss.hpp"
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <gtest/gtest.h>

namespace lolcats::test {
namespace {

StudentCase entropy_case(NearKeys near, FeatureMapKind map, bool affine) {
    const AttentionShape shape{.batch = 2, .length = 37, .heads = 2, .kv_heads = 1, .head_dim = 6};
    return {shape, {near, 8, map, small_feature_dim(map, shape.head_dim), affine}};
}

struct EntropyRun {
    double loss;
    double loss_alone;
    NaiveInputs gradients;
};

EntropyRun run_cross_entropy(const StudentCase& c, const NaiveInputs& in, double scale, NaiveKeys counted) {
    const StudentRun<double> run(c, in);
    const auto y = poisoned<double>(c.rows(), c.query_width());
    const auto log_sum = poisoned<double>(c.statistic_rows(), c.shape.length);
    softmax_attention(c.shape, run.inputs(), {y, log_sum});
    const auto gradients = run.zero_gradients();
    const AttentionEntropy<double> entropy{counted == NaiveKeys::far ? EntropyKeys::far : EntropyKeys::all, log_sum,
                                           run.normalizer};
    const double loss = attention_cross_entropy(c.shape, run.student(), run.inputs(), entropy, scale, gradients);
    return {loss, attention_cross_entropy(c.shape, run.student(), run.inputs(), entropy),
            parameter_sums(c.shape, gradients)};
}

void expect_cross_entropy(const StudentCase& c, NaiveInputs in, NaiveKeys counted, const std::string& what) {
    constexpr double scale = 0.7;
    const EntropyRun actual = run_cross_entropy(c, in, scale, counted);
    EXPECT_TRUE(close(actual.loss, naive_attention_cross_entropy(c.shape, c.form, in, counted).loss, 1e-10)) << what;
    EXPECT_EQ(actual.loss, actual.loss_alone) << what;
    const auto loss = [&] { return scale * naive_attention_cross_entropy(c.shape, c.form, in, counted).loss; };
    const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient, const char* array) {
        const auto places = spread_indices(x.size(), 10);
        // Small steps: the logarithm of a small weight bends, and t2r has kinks.
        EXPECT_TRUE(close(picked(gradient, places), central_differences(loss, x, places, 1e-6), 2e-6)) << what << array;
    };
    check(in.q_map, actual.gradients.q_map, " q_map");
    check(in.k_map, actual.gradients.k_map, " k_map");
    if (has_bias(c.form.map)) check(in.q_bias, actual.gradients.q_bias, " q_bias");
    if (has_bias(c.form.map)) check(in.k_bias, actual.gradients.k_bias, " k_bias");
    if (c.form.near != NearKeys::none) check(in.g, actual.gradients.g, " g");
}

TEST(AttentionCrossEntropy, AgreesWithTheFormulas) {
    for (const auto near : all_near_keys)
        for (const auto map : all_feature_maps)
            for (const bool affine : {false, true}) {
                const StudentCase c = entropy_case(near, map, affine);
                expect_cross_entropy(c, random_inputs(c, 80), NaiveKeys::all, name(near) + " " + feature_map_name(map));
            }
}

TEST(FarCrossEntropy, AgreesWithTheFormulas) {
    for (const auto near : all_near_keys)
        for (const auto map : {FeatureMapKind::hedgehog, FeatureMapKind::t2r})
            for (const bool affine : {false, true}) {
                const StudentCase c = entropy_case(near, map, affine);
                expect_cross_entropy(c, random_inputs(c, 82), NaiveKeys::far, name(near) + " " + feature_map_name(map));
            }
}

TEST(FarCrossEntropy, IsNothingWhereNothingIsFar) {
    StudentCase c = entropy_case(NearKeys::terrace, FeatureMapKind::hedgehog, false);
    c.form.window = 19; // of 37 keys
    const EntropyRun actual = run_cross_entropy(c, random_inputs(c, 83), 1, NaiveKeys::far);
    EXPECT_EQ(actual.loss, 0);
    for (const double g : actual.gradients.q_map) EXPECT_EQ(g, 0);
}

/// Sharp feature maps leave some far weights below 1e-12: their logarithm is clamped and passes no gradient.
TEST(AttentionCrossEntropy, ClampsVanishingWeights) {
    for (const auto near : all_near_keys) {
        const StudentCase c = entropy_case(near, FeatureMapKind::hedgehog_half, false);
        NaiveInputs in = random_inputs(c, 90);
        for (auto* map : {&in.q_map, &in.k_map})
            for (double& x : *map) x *= 25;
        ASSERT_GT(naive_attention_cross_entropy(c.shape, c.form, in).clamped_mass, 0.0);
        expect_cross_entropy(c, in, NaiveKeys::all, name(near));
        ASSERT_GT(naive_attention_cross_entropy(c.shape, c.form, in, NaiveKeys::far).clamped_mass, 0.0);
        expect_cross_entropy(c, in, NaiveKeys::far, name(near));
    }
}

TEST(SquaredError, RelativeToEachSequence) {
    constexpr int length = 3;
    constexpr int sequences = 2;
    constexpr int columns = 5;
    constexpr int size = length * columns;
    const auto a = random_values(sequences * size, 3);
    auto b = random_values(sequences * size, 4);
    for (int i = 0; i < size; ++i) b[i] *= 0.01;
    const auto dy = poisoned<double>(sequences * length, columns);
    std::vector<double> expected;
    double sum = 0;
    for (int s = 0; s < sequences; ++s) {
        double mean = 0;
        for (int i = 0; i < size; ++i) mean += b[s * size + i] * b[s * size + i] / size;
        for (int i = s * size; i < (s + 1) * size; ++i) {
            sum += (a[i] - b[i]) * (a[i] - b[i]) / mean;
            expected.push_back(2 * 0.3 * (a[i] - b[i]) / mean);
        }
    }
    const auto student = matrix<double>(sequences * length, columns, a);
    const auto teacher = matrix<double>(sequences * length, columns, b);
    EXPECT_TRUE(close(relative_squared_error(student, length, {teacher, 0.3, dy}), sum, 1e-12));
    EXPECT_TRUE(close(values(dy), expected, 1e-12));
}

TEST(SquaredError, ValueAndGradient) {
    const auto a = random_values(7 * 5, 1);
    const auto b = random_values(7 * 5, 2);
    const auto dy = poisoned<double>(7, 5);
    std::vector<double> expected;
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
        expected.push_back(2 * 0.3 * (a[i] - b[i]));
    }
    EXPECT_TRUE(close(squared_error(matrix<double>(7, 5, a), {matrix<double>(7, 5, b), 0.3, dy}), sum, 1e-12));
    EXPECT_TRUE(close(values(dy), expected, 1e-12));
}

} // namespace
} // namespace lolcats::test
