/// The student's attention on tensor cores against its T x T form in float64.
#include "tests/kernels/cuda/student_run.hpp"
#include "tests/support/compare.hpp"

namespace lolcats::test::test_student_attention_cuda {
namespace {

/// Weights and features are rounded to bf16, 2^-9 at most and a third of that in the root mean square, and so is the
/// state that sums them up. The worst of tens of thousands of outputs may be off by ten times this.
constexpr double output_tolerance = 4e-3;
/// A normalizer is the sum of many of them.
constexpr double normalizer_tolerance = 2e-3;

void expect_student(const StudentCase& c) {
    ASSERT_TRUE(cuda::supports(c.shape, c.form)) << case_name(c);
    const NaiveInputs in = rounded_inputs(c, 100);
    const NaiveAttention expected = naive_student(c.shape, c.form, in);
    const CudaStudent run(c, in);
    run.forward();
    EXPECT_TRUE(close(run.y.values(), expected.y, output_tolerance)) << case_name(c);
    EXPECT_TRUE(close(run.normalizer.values(), expected.statistics, normalizer_tolerance)) << case_name(c);
}

CUDA_TEST(StudentAttentionAgreesAtAllLengths) {
    for (const auto near : all_near_keys)
        for (const int window : {16, 48})
            for (const int length : {1, window - 1, window, 2 * window, 2 * window + 1, 3 * window + 7, 5 * window})
                expect_student(student_case(near, length, window));
}

CUDA_TEST(StudentAttentionAgreesForAllSizes) {
    for (const auto near : all_near_keys)
        for (const StudentCase& c : size_cases(near)) expect_student(c);
}

CUDA_TEST(StudentAttentionAgreesForAllFeatureMaps) {
    for (const auto near : all_near_keys)
        for (const auto map : maps_with_a_twin())
            for (const bool affine : {false, true}) {
                StudentCase c = student_case(near, 75, 16, 32, 32);
                c.form.map = map;
                c.form.affine = affine;
                expect_student(c);
            }
}

CUDA_TEST(StudentAttentionFindsEachHeadsKeys) {
    for (const auto near : all_near_keys)
        for (const int kv_heads : {1, 3, 6}) {
            StudentCase c = student_case(near, 70, 16);
            c.shape.batch = 2;
            c.shape.heads = 6;
            c.shape.kv_heads = kv_heads;
            expect_student(c);
        }
}

CUDA_TEST(StudentAttentionComputesTheSquaredError) {
    const StudentCase c = student_case(NearKeys::terrace, 75, 16);
    const NaiveInputs in = rounded_inputs(c, 3);
    const CudaStudent run(c, in);
    const auto teacher = random_values(c.rows() * c.query_width(), 4);
    const auto teacher_on_device = on_device(teacher);
    const auto dy = poisoned_on_device(teacher.size());
    const DeviceArray<double> loss(1);
    const cuda::SquaredError error{teacher_on_device.data(), 0.25F, dy.data(), loss.data()};
    run.forward(&error);
    // Of the kernel's own y: this is a sum in float, to be compared as such.
    const auto y = run.y.values();
    std::vector<double> expected_dy(y.size());
    double expected = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        expected += (y[i] - teacher[i]) * (y[i] - teacher[i]);
        expected_dy[i] = 0.5 * (y[i] - teacher[i]);
    }
    EXPECT_TRUE(close(loss.values()[0], expected, 1e-6));
    EXPECT_TRUE(close(dy.values(), expected_dy, 1e-6));
}

CUDA_TEST(StudentAttentionSupports) {
    const StudentCase good = student_case(NearKeys::terrace, 64, 64, 128, 64);
    EXPECT_TRUE(cuda::supports(good.shape, good.form));
    for (const int window : {8, 40, 256}) {
        const StudentCase c = student_case(NearKeys::terrace, 64, window, 128, 64);
        EXPECT_FALSE(cuda::supports(c.shape, c.form)) << window;
    }
    const StudentCase odd = student_case(NearKeys::terrace, 64, 64, 128, 48);
    EXPECT_FALSE(cuda::supports(odd.shape, odd.form));
    const CudaStudent run(odd, rounded_inputs(odd, 1));
    EXPECT_THROW(run.forward(), std::invalid_argument);
}

} // namespace
} // namespace lolcats::test::test_student_attention_cuda
