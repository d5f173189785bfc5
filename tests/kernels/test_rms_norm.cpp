#include "kernels/rms_norm.hpp"

#include "kernels/elementwise.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <cmath>

namespace lolcats::test::test_rms_norm {
namespace {

constexpr int rows = 5;
constexpr int width = 37;
constexpr double eps = 1e-5;

std::vector<double> naive(const std::vector<double>& x, const std::vector<double>& weight) {
    std::vector<double> y(x.size());
    for (int i = 0; i < rows; ++i) {
        double squares = 0;
        for (int j = 0; j < width; ++j) squares += x[i * width + j] * x[i * width + j];
        for (int j = 0; j < width; ++j)
            y[i * width + j] = x[i * width + j] / std::sqrt(squares / width + eps) * weight[j];
    }
    return y;
}

template <class Real>
std::vector<double> forward(const std::vector<double>& x, const std::vector<double>& weight) {
    const auto y = poisoned<Real>(rows, width);
    rms_norm(matrix<Real>(rows, width, x), vector<Real>(weight), eps, y);
    return values(y);
}

TEST(RmsNorm, ForwardAgreesWithNaive) {
    // Small inputs, so that eps counts.
    for (const double scale : {1.0, 3e-3}) {
        const auto x = random_values(rows * width, 1, scale);
        const auto weight = random_values(width, 2);
        EXPECT_TRUE(close(forward<float>(x, weight), naive(x, weight), 5e-7));
        EXPECT_TRUE(close(forward<double>(x, weight), naive(x, weight), 1e-14));
    }
}

TEST(RmsNorm, BackwardAddsTheGradient) {
    auto x = random_values(rows * width, 3);
    const auto weight = random_values(width, 4);
    const auto dy = random_values(rows * width, 5);
    const auto old = random_values(rows * width, 6);
    auto expected = central_differences([&] { return inner_product(dy, naive(x, weight)); }, x);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += old[i];
    const auto dx = matrix<double>(rows, width, old);
    rms_norm_backward(matrix<double>(rows, width, x), vector<double>(weight), eps, matrix<double>(rows, width, dy), dx,
                      dx);
    EXPECT_TRUE(close(values(dx), expected, 1e-8));
    const auto dx_float = matrix<float>(rows, width, old);
    rms_norm_backward(matrix<float>(rows, width, x), vector<float>(weight), eps, matrix<float>(rows, width, dy),
                      dx_float, dx_float);
    EXPECT_TRUE(close(values(dx_float), values(dx), 1e-6));
    const auto apart = poisoned<float>(rows, width);
    rms_norm_backward(matrix<float>(rows, width, x), vector<float>(weight), eps, matrix<float>(rows, width, dy),
                      matrix<float>(rows, width, old), apart);
    EXPECT_EQ(values(apart), values(dx_float));
}

TEST(RmsNorm, GradientMayTakeThePlaceOfTheInput) {
    const auto x = random_values(rows * width, 3);
    const auto weight = vector<float>(random_values(width, 4));
    const auto dy = matrix<float>(rows, width, random_values(rows * width, 5));
    const auto alone = poisoned<float>(rows, width);
    rms_norm_backward(matrix<float>(rows, width, x), weight, eps, dy, {}, alone);
    const auto in_place = matrix<float>(rows, width, x);
    rms_norm_backward(in_place, weight, eps, dy, {}, in_place);
    EXPECT_EQ(values(in_place), values(alone));
}

TEST(RmsNorm, InBf16IsTheRoundedOne) {
    const auto x = matrix<float>(rows, width, random_values(rows * width, 1));
    const auto weight = vector<float>(random_values(width, 2));
    const auto full = poisoned<float>(rows, width);
    const Matrix<BFloat16> half("half", rows, width);
    rms_norm(x, weight, eps, full);
    rms_norm(x, weight, eps, half);
    round_to_bf16(full);
    EXPECT_EQ(values(half), values(full));
}

} // namespace
} // namespace lolcats::test::test_rms_norm
