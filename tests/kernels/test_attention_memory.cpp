/// One head of the student at T = 16384, forward and backward, within 64 MB: nothing may grow as T x T.
#include "tests/kernels/student_case.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <malloc.h>

namespace lolcats::test {
namespace {

/// Peak resident memory of the process in MB, counted from now on if the kernel lets us.
double peak_megabytes() {
    std::ifstream status("/proc/self/status");
    std::string key;
    double kilobytes = 0;
    while (status >> key)
        if (key == "VmHWM:") status >> kilobytes;
    return kilobytes / 1024;
}

bool reset_peak() {
    std::ofstream file("/proc/self/clear_refs");
    file << "5" << std::flush;
    return static_cast<bool>(file);
}

class AttentionMemory : public testing::TestWithParam<NearKeys> {};

TEST_P(AttentionMemory, OneLongHeadStaysSmall) {
    if (!runs_on_host) GTEST_SKIP() << "arrays are not in the host's memory, which this test measures";
    malloc_trim(0); // what earlier tests freed must not hide what this one takes
    if (!reset_peak()) GTEST_SKIP() << "peak memory cannot be reset on this system";
    const AttentionShape shape{.batch = 1, .length = 16384, .heads = 1, .kv_heads = 1, .head_dim = 128};
    const StudentForm form{GetParam(), 64, FeatureMapKind::hedgehog, 64, false};
    const double before = peak_megabytes();
    const int n = shape.length;
    const int d = shape.head_dim;
    // The inputs count too: five arrays of T x d floats are 40 MB.
    using Rows = Matrix<float>;
    const Rows dy("dy", n, d);
    const AttentionInputs<float> inputs{Rows("q", n, d), Rows("k", n, d), Rows("v", n, d)};
    const AttentionOutputs<float> outputs{Rows("y", n, d), Rows("normalizer", 1, n)};
    const Student<float> student{form,
                                 {Tensor3<float>("q_map", 1, d, 64), Tensor3<float>("k_map", 1, d, 64),
                                  Vector<float>("q_bias", 1), Vector<float>("k_bias", 1), Vector<float>("g", 1)}};
    Kokkos::deep_copy(dy, 1.0F);
    const StudentGradients<float> gradients(1, d * 64);
    student_attention(shape, student, inputs, outputs);
    student_attention_backward(shape, student, inputs, outputs, dy, gradients);
    EXPECT_LT(peak_megabytes() - before, 64);
    EXPECT_GT(peak_megabytes() - before, 36); // the measure itself works; a few pages may have been there before
}

INSTANTIATE_TEST_SUITE_P(Near, AttentionMemory, testing::ValuesIn(all_near_keys),
                         [](const auto& info) { return name(info.param); });

} // namespace
} // namespace lolcats::test
