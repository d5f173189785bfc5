/// Gradients of the student's attention on tensor cores against those of its T x T form in float64.
#include "tests/kernels/cuda/student_run.hpp"
#include "tests/kernels/naive_gradients.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

namespace lolcats::test {
namespace {

/// dy / D, the states, weights and their gradients are rounded to bf16 (2^-9 at most) before they are multiplied, and
/// two or three such products follow each other. Their errors average out but for the first queries, which have few
/// keys and the largest gradients.
constexpr double gradient_tolerance = 1e-2;
/// Of maps whose features do not sum to one, so that larger terms cancel.
constexpr double unnormalised_tolerance = 2e-2;

double tolerance(const StudentForm& form) {
    const bool normalised = form.map == FeatureMapKind::hedgehog || form.map == FeatureMapKind::hedgehog_half;
    return normalised ? gradient_tolerance : unnormalised_tolerance;
}

/// [B H, m] -> [H, m]
std::vector<double> sum_over_batch(const AttentionShape& s, const std::vector<double>& values) {
    const std::size_t size = values.size() / s.batch;
    std::vector<double> sums(size);
    for (std::size_t i = 0; i < values.size(); ++i) sums[i % size] += values[i];
    return sums;
}

/// [B T, H d] -> [B T, H_kv d]
std::vector<double> sum_over_groups(const AttentionShape& s, const std::vector<double>& values) {
    std::vector<double> sums(values.size() / s.group());
    for (int b = 0; b < s.batch; ++b)
        for (int n = 0; n < s.length; ++n)
            for (int h = 0; h < s.heads; ++h)
                for (int c = 0; c < s.head_dim; ++c)
                    sums[naive_key(s, b, n, h) + c] += values[naive_query(s, b, n, h) + c];
    return sums;
}

enum class Parameters { trained, frozen };

/// Gradients of dy . y in the layout of the inputs. Those of parameters are added to `start`.
NaiveInputs gradients_on_device(const CudaStudent& run, const std::vector<double>& dy, bool inputs, double start = 0,
                                Parameters parameters = Parameters::trained) {
    const AttentionShape& s = run.c.shape;
    const auto filled = [&](std::size_t count) { return on_device(std::vector<double>(count, start)); };
    const auto q_map = filled(run.c.statistic_rows() * run.c.map_size());
    const auto k_map = filled(run.c.statistic_rows() * run.c.map_size());
    const auto q_bias = filled(run.c.statistic_rows());
    const auto k_bias = filled(run.c.statistic_rows());
    const auto g = filled(run.c.statistic_rows());
    const std::size_t size = run.c.rows() * run.c.query_width();
    const auto dq = poisoned_on_device(size);
    const auto dk = poisoned_on_device(size);
    const auto dv = poisoned_on_device(size);
    const auto dy_on_device = on_device(dy);
    const cuda::InputGradientPointers input_pointers{dq.data(), dk.data(), dv.data()};
    const DeviceArray<unsigned char> workspace(cuda::student_attention_backward_workspace(s, run.c.form));
    const cuda::StudentGradientPointers sums{q_map.data(), k_map.data(), q_bias.data(), k_bias.data(), g.data()};
    cuda::student_attention_backward(
        s, run.c.form, run.parameters(), run.inputs(), {run.y.data(), run.normalizer.data(), dy_on_device.data()},
        parameters == Parameters::trained ? sums : cuda::StudentGradientPointers{}, inputs ? &input_pointers : nullptr,
        {workspace.data(), workspace.bytes()}, nullptr);
    NaiveInputs result;
    result.q_map = sum_over_batch(s, q_map.values());
    result.k_map = sum_over_batch(s, k_map.values());
    result.q_bias = sum_over_batch(s, q_bias.values());
    result.k_bias = sum_over_batch(s, k_bias.values());
    result.g = sum_over_batch(s, g.values());
    result.q = dq.values();
    if (!inputs) return result;
    result.k = sum_over_groups(s, dk.values());
    result.v = sum_over_groups(s, dv.values());
    return result;
}

/// Sums in which terms of both signs may cancel are compared with the size of the terms.
void expect_sums(const std::vector<double>& actual, const std::vector<double>& expected,
                 const std::vector<double>& sizes, const StudentCase& c, const char* what) {
    for (std::size_t h = 0; h < expected.size(); ++h)
        EXPECT_NEAR(actual[h], expected[h], tolerance(c.form) * sizes[h])
            << what << ", terms of size " << sizes[h] << ", " << case_name(c);
}

void expect_parameter_gradients(const StudentCase& c, const NaiveInputs& actual, const NaiveGradients& expected) {
    EXPECT_TRUE(close(actual.q_map, expected.q_map, tolerance(c.form))) << "q_map " << case_name(c);
    EXPECT_TRUE(close(actual.k_map, expected.k_map, tolerance(c.form))) << "k_map " << case_name(c);
    if (has_bias(c.form.map)) {
        expect_sums(actual.q_bias, expected.q_bias, expected.q_bias_size, c, "q_bias");
        expect_sums(actual.k_bias, expected.k_bias, expected.k_bias_size, c, "k_bias");
    }
    if (c.form.near != NearKeys::none) expect_sums(actual.g, expected.g, expected.g_size, c, "g");
}

void expect_gradients(const StudentCase& c) {
    const NaiveInputs in = rounded_inputs(c, 45);
    const auto dy = random_values(c.rows() * c.query_width(), 41);
    const NaiveGradients expected = naive_gradients(c.shape, c.form, in, dy);
    const CudaStudent run(c, in);
    run.forward();
    const NaiveInputs actual = gradients_on_device(run, dy, true);
    expect_parameter_gradients(c, actual, expected);
    EXPECT_TRUE(close(actual.q, expected.q, tolerance(c.form))) << "q " << case_name(c);
    EXPECT_TRUE(close(actual.k, expected.k, tolerance(c.form))) << "k " << case_name(c);
    EXPECT_TRUE(close(actual.v, expected.v, tolerance(c.form))) << "v " << case_name(c);
}

CUDA_TEST(StudentGradientsAgreeAtAllLengths) {
    for (const auto near : all_near_keys)
        for (const int window : {16, 48})
            for (const int length : {window - 1, 2 * window, 2 * window + 1, 3 * window + 7, 5 * window})
                expect_gradients(student_case(near, length, window));
}

CUDA_TEST(StudentGradientsAgreeForAllSizes) {
    for (const auto near : all_near_keys)
        for (const StudentCase& c : size_cases(near)) expect_gradients(c);
}

CUDA_TEST(StudentGradientsAgreeForAllFeatureMaps) {
    for (const auto near : all_near_keys)
        for (const auto map : maps_with_a_twin())
            for (const bool affine : {false, true}) {
                StudentCase c = student_case(near, 75, 16, 32, 32);
                c.form.map = map;
                c.form.affine = affine;
                expect_gradients(c);
            }
}

CUDA_TEST(StudentGradientsFindEachHeadsKeys) {
    for (const auto near : all_near_keys)
        for (const int kv_heads : {1, 3, 6}) {
            StudentCase c = student_case(near, 70, 16);
            c.shape.batch = 2;
            c.shape.heads = 6;
            c.shape.kv_heads = kv_heads;
            expect_gradients(c);
        }
}

/// Sequences of more than the 512 rows that one block of the maps' backward pass takes.
CUDA_TEST(StudentGradientsAgreeOverSeveralSegments) {
    StudentCase c = student_case(NearKeys::terrace, 1100, 32);
    c.shape.heads = 1;
    expect_gradients(c);
}

CUDA_TEST(ParameterGradientsNeedNoInputGradientsAndAreAdded) {
    for (const auto near : all_near_keys) {
        const StudentCase c = student_case(near, 75, 16);
        const NaiveInputs in = rounded_inputs(c, 60);
        const auto dy = random_values(c.rows() * c.query_width(), 61);
        const CudaStudent run(c, in);
        run.forward();
        const NaiveInputs with = gradients_on_device(run, dy, true);
        const NaiveInputs without = gradients_on_device(run, dy, false, 1);
        const auto plus_one = [](std::vector<double> values) {
            for (double& x : values) x += 1;
            return values;
        };
        EXPECT_TRUE(close(without.q_map, plus_one(with.q_map), 1e-6));
        EXPECT_TRUE(close(without.k_map, plus_one(with.k_map), 1e-6));
        if (near != NearKeys::none) {
            EXPECT_TRUE(close(without.g, plus_one(with.g), 1e-6));
        }
        for (const double x : without.q) EXPECT_TRUE(std::isnan(x)) << "an input gradient was written unasked";
    }
}

CUDA_TEST(FrozenParametersLeaveTheInputGradientsAsTheyAre) {
    for (const auto near : all_near_keys) {
        StudentCase c = student_case(near, 1100, 32); // several segments, and tiles of rows in each
        c.shape.heads = c.shape.kv_heads = 1;
        const CudaStudent run(c, rounded_inputs(c, 64));
        const auto dy = random_values(c.rows() * c.query_width(), 65);
        run.forward();
        const NaiveInputs trained = gradients_on_device(run, dy, true);
        const NaiveInputs frozen = gradients_on_device(run, dy, true, 0, Parameters::frozen);
        EXPECT_EQ(frozen.q, trained.q);
        EXPECT_EQ(frozen.k, trained.k);
        EXPECT_EQ(frozen.v, trained.v);
        for (const double x : frozen.q_map) EXPECT_EQ(x, 0) << "a frozen map's gradient was written";
    }
}

/// Keys with the same, largest score share the gradient through the maximum, also across a chunk's border.
CUDA_TEST(TiesShareTheGradientOfTheMaximum) {
    const StudentCase c = student_case(NearKeys::terrace, 75, 16);
    NaiveInputs in = rounded_inputs(c, 70);
    const int d = c.shape.head_dim;
    const std::vector<int> tied = {62, 63, 64};
    for (int j = 0; j < d; ++j) {
        const double x = in.k[naive_key(c.shape, 0, tied[0], 0) + j];
        for (const int key : tied) in.k[naive_key(c.shape, 0, key, 0) + j] = x;
        // The query that sees them points along them, so that they are at its maximum.
        in.q[naive_query(c.shape, 0, 70, 0) + j] = x;
    }
    std::vector<double> dy(c.rows() * c.query_width());
    for (int j = 0; j < d; ++j) dy[naive_query(c.shape, 0, 70, 0) + j] = 3 + j % 5;
    const NaiveGradients expected = naive_gradients(c.shape, c.form, in, dy);
    const CudaStudent run(c, in);
    run.forward();
    const NaiveInputs actual = gradients_on_device(run, dy, true);
    const auto row = [&](const std::vector<double>& values, std::size_t first) {
        return std::vector<double>(values.begin() + static_cast<std::ptrdiff_t>(first),
                                   values.begin() + static_cast<std::ptrdiff_t>(first) + d);
    };
    const std::size_t query = naive_query(c.shape, 0, 70, 0);
    EXPECT_TRUE(close(row(actual.q, query), row(expected.q, query), gradient_tolerance));
    // One key takes the maximum's part in the reference: what the three get together is the same.
    const auto together = [&](const std::vector<double>& dk) {
        std::vector<double> sum(d);
        for (const int key : tied)
            for (int j = 0; j < d; ++j) sum[j] += dk[naive_key(c.shape, 0, key, 0) + j];
        return sum;
    };
    EXPECT_TRUE(close(together(actual.k), together(expected.k), gradient_tolerance));
}

/// The reference itself.
TEST(NaiveGradients, AgreeWithFiniteDifferences) {
    for (const auto near : all_near_keys)
        for (const auto map : maps_with_a_twin())
            for (const bool affine : {false, true}) {
                StudentCase c = student_case(near, 29, 8, 6, 6);
                c.form.map = map;
                c.form.affine = affine;
                NaiveInputs in = random_inputs(c, 45);
                const auto dy = random_values(c.rows() * c.query_width(), 41);
                const NaiveGradients actual = naive_gradients(c.shape, c.form, in, dy);
                const auto loss = [&] { return inner_product(dy, naive_student(c.shape, c.form, in).y); };
                const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient, const char* what) {
                    const auto places = spread_indices(x.size(), 5);
                    EXPECT_TRUE(close(picked(gradient, places), central_differences(loss, x, places), 1e-6))
                        << what << " " << case_name(c);
                };
                check(in.q, actual.q, "q");
                check(in.k, actual.k, "k");
                check(in.v, actual.v, "v");
                check(in.q_map, actual.q_map, "q_map");
                check(in.k_map, actual.k_map, "k_map");
                if (has_bias(map)) check(in.q_bias, actual.q_bias, "q_bias");
                if (near != NearKeys::none) check(in.g, actual.g, "g");
            }
}

} // namespace
} // namespace lolcats::test
