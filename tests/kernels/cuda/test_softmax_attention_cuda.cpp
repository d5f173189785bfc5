/// The teacher's attention on tensor cores against its T x T form in float64.
#include "kernels/cuda/attention.hpp"
#include "tests/kernels/attention_case.hpp"
#include "tests/kernels/cuda/device.hpp"
#include "tests/support/compare.hpp"

namespace lolcats::test {
namespace {

/// Weights are rounded to bf16, 2^-9 at most and a third of that in the root mean square; sums of many average it
/// further.
constexpr double output_tolerance = 2e-3;
/// Scores are sums of exact products in float.
constexpr double log_sum_tolerance = 2e-6;

void expect_teacher(const AttentionShape& shape) {
    const StudentCase c{shape, {NearKeys::terrace, 16, FeatureMapKind::hedgehog, 16, false}};
    const NaiveInputs in = rounded_inputs(c, 9);
    const NaiveAttention expected = naive_teacher(shape, in);
    const auto q = on_device(in.q);
    const auto k = on_device(in.k);
    const auto v = on_device(in.v);
    const auto y = poisoned_on_device(expected.y.size());
    const auto log_sum = poisoned_on_device(expected.statistics.size());
    const DeviceArray<unsigned char> workspace(cuda::softmax_attention_workspace(shape));
    cuda::softmax_attention(shape, {q.data(), k.data(), v.data()}, y.data(), log_sum.data(),
                            {workspace.data(), workspace.bytes()}, nullptr);
    const auto what = "d " + std::to_string(shape.head_dim) + " T " + std::to_string(shape.length);
    EXPECT_TRUE(close(y.values(), expected.y, output_tolerance)) << what;
    EXPECT_TRUE(close(log_sum.values(), expected.statistics, log_sum_tolerance)) << what;
}

CUDA_TEST(SoftmaxAttentionAgreesWithTheFormulas) {
    for (const int d : {32, 64, 128})
        for (const int length : {1, 63, 130, 301})
            expect_teacher({.batch = 1, .length = length, .heads = 2, .kv_heads = 1, .head_dim = d});
}

CUDA_TEST(SoftmaxAttentionFindsEachHeadsKeys) {
    for (const int kv_heads : {1, 2, 6})
        expect_teacher({.batch = 2, .length = 70, .heads = 6, .kv_heads = kv_heads, .head_dim = 32});
}

CUDA_TEST(SoftmaxAttentionRefusesWhatItCannotDo) {
    EXPECT_FALSE(cuda::supports({.batch = 1, .length = 8, .heads = 2, .kv_heads = 1, .head_dim = 48}));
    const AttentionShape shape{.batch = 1, .length = 8, .heads = 2, .kv_heads = 1, .head_dim = 32};
    const auto x = poisoned_on_device(8 * 2 * 32);
    EXPECT_THROW(
        cuda::softmax_attention(shape, {x.data(), x.data(), x.data()}, x.data(), x.data(), {x.data(), 100}, nullptr),
        std::invalid_argument);
}

} // namespace
} // namespace lolcats::test
