/// Float attention with tensor cores allowed: in a build for GPUs it goes to the CUDA kernels, and in one for the CPU
/// it stays as it is.
#include "kernels/attention_twin.hpp"
#include "kernels/transfer_loss.hpp"
#include "tests/kernels/student_case.hpp"
#include "tests/support/compare.hpp"

#include <gtest/gtest.h>

namespace lolcats::test {
namespace {

#ifdef KOKKOS_ENABLE_CUDA
constexpr double output_tolerance = 5e-3; // operands are rounded to bf16
constexpr double gradient_tolerance = 2e-2;
#else
constexpr double output_tolerance = 3e-6;
constexpr double gradient_tolerance = 1e-5;
#endif

class AttentionTwin : public testing::Test {
protected:
    /// Allows them before the members below compute, which is before SetUp().
    struct TensorCores {
        TensorCores() { twin::use_tensor_cores(true); }
        ~TensorCores() { twin::use_tensor_cores(false); }
    } tensor_cores;

    StudentCase c{{.batch = 2, .length = 75, .heads = 4, .kv_heads = 2, .head_dim = 32},
                  {NearKeys::terrace, 16, FeatureMapKind::hedgehog, 16, false}};
    NaiveInputs in = rounded_inputs(c, 80);
    StudentRun<double> exact{c, in};
    StudentRun<float> run{c, in};
};

/// Portable kernels would agree with the rest of this file as well.
TEST_F(AttentionTwin, FloatGoesToTheGpusKernels) {
    const auto student = run.student();
    const auto inputs = run.inputs();
    const auto zeros = [](const Matrix<float>& like) { return Matrix<float>("zeros", like.extent(0), like.extent(1)); };
    const auto zero_outputs = [&] { return AttentionOutputs<float>{zeros(run.y), zeros(run.normalizer)}; };
    const auto teacher = zero_outputs();
    const auto outputs = zero_outputs();
    const auto dy = zeros(run.y);
    const auto gradients = run.zero_gradients();
    const bool on_gpu = !runs_on_host;
    double sum = 0;
    EXPECT_EQ(twin::softmax_attention(c.shape, inputs, teacher), on_gpu);
    EXPECT_EQ(twin::student_attention(c.shape, student, inputs, outputs), on_gpu);
    EXPECT_EQ(twin::student_squared_error(c.shape, student, inputs, outputs, {teacher.y, 1.0F, dy}, sum), on_gpu);
    EXPECT_EQ(twin::student_attention_backward(c.shape, student, inputs, outputs, dy, gradients, nullptr), on_gpu);
    EXPECT_EQ(twin::attention_cross_entropy(c.shape, student, inputs,
                                            {EntropyKeys::all, teacher.statistics, outputs.statistics}, 1.0F,
                                            &gradients, sum),
              on_gpu);
    EXPECT_FALSE(twin::student_attention(c.shape, exact.student(), exact.inputs(), exact.outputs()))
        << "of double there are none";
    twin::use_tensor_cores(false);
    EXPECT_FALSE(twin::softmax_attention(c.shape, inputs, teacher));
}

TEST_F(AttentionTwin, OutputsAgree) {
    EXPECT_TRUE(close(values(run.y), values(exact.y), output_tolerance));
    EXPECT_TRUE(close(values(run.normalizer), values(exact.normalizer), output_tolerance));
    const auto y = poisoned<float>(c.rows(), c.query_width());
    const auto log_sum = poisoned<float>(c.statistic_rows(), c.shape.length);
    softmax_attention(c.shape, run.inputs(), {y, log_sum});
    const NaiveAttention expected = naive_teacher(c.shape, in);
    EXPECT_TRUE(close(values(y), expected.y, output_tolerance));
    EXPECT_TRUE(close(values(log_sum), expected.statistics, output_tolerance));
}

TEST_F(AttentionTwin, GradientsAgree) {
    const auto dy = random_values(c.rows() * c.query_width(), 81);
    const NaiveInputs expected = all_gradients(exact, dy).sums;
    const NaiveInputs actual = all_gradients(run, dy).sums;
    EXPECT_TRUE(close(actual.q, expected.q, gradient_tolerance));
    EXPECT_TRUE(close(actual.k, expected.k, gradient_tolerance));
    EXPECT_TRUE(close(actual.v, expected.v, gradient_tolerance));
    EXPECT_TRUE(close(actual.q_map, expected.q_map, gradient_tolerance));
    EXPECT_TRUE(close(actual.k_map, expected.k_map, gradient_tolerance));
    const auto parameters = parameter_sums(c.shape, run.parameter_gradients(dy));
    EXPECT_TRUE(close(parameters.q_map, expected.q_map, gradient_tolerance));
    EXPECT_TRUE(close(parameters.g, expected.g, 10 * gradient_tolerance)); // its terms cancel
}

TEST_F(AttentionTwin, SquaredErrorIsThatOfTheOutputs) {
    const auto teacher = matrix<float>(c.rows(), c.query_width(), random_values(c.rows() * c.query_width(), 82));
    const auto y = poisoned<float>(c.rows(), c.query_width());
    const auto normalizer = poisoned<float>(c.statistic_rows(), c.shape.length);
    const auto dy = poisoned<float>(c.rows(), c.query_width());
    const double error =
        student_squared_error(c.shape, run.student(), run.inputs(), {y, normalizer}, {teacher, 0.25F, dy});
    const auto expected_dy = poisoned<float>(c.rows(), c.query_width());
    EXPECT_TRUE(close(error, squared_error(y, {teacher, 0.25F, expected_dy}), 1e-6));
    EXPECT_TRUE(close(values(dy), values(expected_dy), 1e-6));
    EXPECT_EQ(values(y), values(run.y));
    EXPECT_EQ(values(normalizer), values(run.normalizer));
}

TEST_F(AttentionTwin, CrossEntropyAgrees) {
    const auto losses = [&]<class Real>(const StudentRun<Real>& of) {
        const auto y = poisoned<Real>(c.rows(), c.query_width());
        const auto log_sum = poisoned<Real>(c.statistic_rows(), c.shape.length);
        softmax_attention(c.shape, of.inputs(), {y, log_sum});
        const auto gradients = of.zero_gradients();
        const auto loss = [&](EntropyKeys keys) {
            const AttentionEntropy<Real> entropy{keys, log_sum, of.normalizer};
            const double sum = attention_cross_entropy(c.shape, of.student(), of.inputs(), entropy, Real(1), gradients);
            EXPECT_EQ(sum, attention_cross_entropy(c.shape, of.student(), of.inputs(), entropy));
            return sum;
        };
        const double all = loss(EntropyKeys::all);
        const double far = loss(EntropyKeys::far);
        return std::pair(std::vector{all, far}, parameter_sums(c.shape, gradients));
    };
    const auto [loss, sums] = losses(run);
    const auto [expected, expected_sums] = losses(exact);
    EXPECT_TRUE(close(loss, expected, output_tolerance));
    EXPECT_TRUE(close(sums.q_map, expected_sums.q_map, gradient_tolerance));
    EXPECT_TRUE(close(sums.k_map, expected_sums.k_map, gradient_tolerance));
}

} // namespace
} // namespace lolcats::test
