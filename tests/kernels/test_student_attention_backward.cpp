/// Gradients of the student's attention against central differences of its T x T form in float64.
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <gtest/gtest.h>

namespace lolcats::test {
namespace {

StudentCase small_case(NearKeys near, FeatureMapKind map, bool affine, int length = 37) {
    const AttentionShape shape{.batch = 2, .length = length, .heads = 2, .kv_heads = 1, .head_dim = 6};
    return {shape, {near, 8, map, small_feature_dim(map, shape.head_dim), affine}};
}

/// Gradients of dy . y by differences of the formulas, in places spread over each array.
void expect_gradients(const StudentCase& c, NaiveInputs in, const NaiveInputs& actual, const std::vector<double>& dy,
                      const std::string& what) {
    const auto loss = [&] { return inner_product(dy, naive_student(c.shape, c.form, in).y); };
    const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient, const char* array) {
        const auto places = spread_indices(x.size(), 12);
        EXPECT_TRUE(close(picked(gradient, places), central_differences(loss, x, places), 1e-6)) << what << array;
    };
    check(in.q, actual.q, " q");
    check(in.k, actual.k, " k");
    check(in.v, actual.v, " v");
    check(in.q_map, actual.q_map, " q_map");
    check(in.k_map, actual.k_map, " k_map");
    if (has_bias(c.form.map)) check(in.q_bias, actual.q_bias, " q_bias");
    if (has_bias(c.form.map)) check(in.k_bias, actual.k_bias, " k_bias");
    if (c.form.near != NearKeys::none) check(in.g, actual.g, " g");
}

class Backward : public testing::TestWithParam<NearKeys> {};

TEST_P(Backward, AgreesWithFiniteDifferences) {
    for (const auto map : all_feature_maps)
        for (const bool affine : {false, true}) {
            const StudentCase c = small_case(GetParam(), map, affine);
            const NaiveInputs in = random_inputs(c, 45);
            const auto dy = random_values(c.rows() * c.query_width(), 41);
            const StudentRun<double> run(c, in);
            expect_gradients(c, in, all_gradients(run, dy).sums, dy, feature_map_name(map));
        }
}

TEST_P(Backward, FloatAgreesWithDouble) {
    StudentCase c = small_case(GetParam(), FeatureMapKind::hedgehog, false, 200);
    c.shape.head_dim = 32;
    c.form.feature_dim = 16;
    c.form.window = 16;
    const NaiveInputs in = random_inputs(c, 50);
    const auto dy = random_values(c.rows() * c.query_width(), 51);
    const NaiveInputs expected = all_gradients(StudentRun<double>(c, in), dy).sums;
    const NaiveInputs actual = all_gradients(StudentRun<float>(c, in), dy).sums;
    EXPECT_TRUE(close(actual.q, expected.q, 1e-5));
    EXPECT_TRUE(close(actual.k, expected.k, 1e-5));
    EXPECT_TRUE(close(actual.v, expected.v, 1e-5));
    EXPECT_TRUE(close(actual.q_map, expected.q_map, 1e-5));
    EXPECT_TRUE(close(actual.k_map, expected.k_map, 1e-5));
    if (c.form.near != NearKeys::none) {
        EXPECT_TRUE(close(actual.g, expected.g, 1e-5));
    }
}

TEST_P(Backward, ParametersDoNotNeedInputGradients) {
    const StudentCase c = small_case(GetParam(), FeatureMapKind::hedgehog, false);
    const StudentRun<float> run(c, random_inputs(c, 60));
    const auto dy = random_values(c.rows() * c.query_width(), 61);
    const auto with = all_gradients(run, dy).by_head;
    const auto without = run.parameter_gradients(dy);
    EXPECT_EQ(values(with.q_map), values(without.q_map));
    EXPECT_EQ(values(with.k_map), values(without.k_map));
    EXPECT_EQ(values(with.window_factors), values(without.window_factors));
}

INSTANTIATE_TEST_SUITE_P(Near, Backward, testing::ValuesIn(all_near_keys),
                         [](const auto& info) { return name(info.param); });

/// As the student's, with nothing but near keys; the tiles of 64 are not filled and overlap the diagonal.
TEST(SoftmaxBackward, AgreesWithFiniteDifferences) {
    StudentCase c = small_case(NearKeys::terrace, FeatureMapKind::hedgehog, false, 133);
    NaiveInputs in = random_inputs(c, 46);
    const auto dy = random_values(c.rows() * c.query_width(), 47);
    const StudentRun<double> run(c, in);
    const auto y = poisoned<double>(c.rows(), c.query_width());
    const auto log_sum = poisoned<double>(c.statistic_rows(), c.shape.length);
    softmax_attention(c.shape, run.inputs(), {y, log_sum});
    const AttentionInputGradients<double> inputs{poisoned<double>(c.rows(), c.query_width()),
                                                 poisoned<double>(c.rows(), c.query_width()),
                                                 poisoned<double>(c.rows(), c.query_width())};
    softmax_attention_backward(c.shape, run.inputs(), {y, log_sum}, matrix<double>(c.rows(), c.query_width(), dy),
                               inputs);
    const auto loss = [&] { return inner_product(dy, naive_teacher(c.shape, in).y); };
    const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient, const char* array) {
        const auto places = spread_indices(x.size(), 12);
        EXPECT_TRUE(close(picked(gradient, places), central_differences(loss, x, places), 1e-6)) << array;
    };
    const auto grouped = [&](const Matrix<double>& per_head) {
        const auto sum = poisoned<double>(c.rows(), c.kv_width());
        sum_head_groups(c.shape, per_head, sum);
        return values(sum);
    };
    check(in.q, values(inputs.q), "q");
    check(in.k, grouped(inputs.k), "k");
    check(in.v, grouped(inputs.v), "v");
}

/// Two keys with the same, largest score share the gradient through the maximum.
TEST(Backward, TiesShareTheGradientOfTheMaximum) {
    const StudentCase c = small_case(NearKeys::sliding, FeatureMapKind::hedgehog, false, 20);
    NaiveInputs in = random_inputs(c, 70);
    const int d = c.shape.head_dim;
    for (int j = 0; j < d; ++j) in.k[naive_key(c.shape, 0, 18, 0) + j] = in.k[naive_key(c.shape, 0, 17, 0) + j];
    // The query that sees both keys points along them, so both are at the maximum.
    for (int j = 0; j < d; ++j) in.q[naive_query(c.shape, 0, 19, 0) + j] = in.k[naive_key(c.shape, 0, 17, 0) + j];
    std::vector<double> dy(c.rows() * c.query_width());
    for (int j = 0; j < d; ++j) dy[naive_query(c.shape, 0, 19, 0) + j] = 3 + j * j;
    const NaiveInputs gradients = all_gradients(StudentRun<double>(c, in), dy).sums;
    // Moving both keys together keeps the tie, so that direction has a derivative to compare with.
    const auto loss = [&](double step) {
        NaiveInputs moved = in;
        for (const int key : {17, 18}) moved.k[naive_key(c.shape, 0, key, 0)] += step;
        return inner_product(dy, naive_student(c.shape, c.form, moved).y);
    };
    const double both = gradients.k[naive_key(c.shape, 0, 17, 0)] + gradients.k[naive_key(c.shape, 0, 18, 0)];
    EXPECT_TRUE(close(both, (loss(1e-5) - loss(-1e-5)) / 2e-5, 1e-6));
    EXPECT_GT(std::abs(both), 1e-4);
}

} // namespace
} // namespace lolcats::test
