#include "kernels/swiglu.hpp"

#include "kernels/elementwise.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <cmath>

namespace lolcats::test::test_swiglu {
namespace {

constexpr int rows = 7;
constexpr int width = 19;

std::vector<double> naive(const std::vector<double>& gate, const std::vector<double>& up) {
    std::vector<double> y(gate.size());
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    return y;
}

template <class Real>
std::vector<double> forward(const std::vector<double>& gate, const std::vector<double>& up) {
    const Matrix<Real> y("y", rows, width);
    swiglu(matrix<Real>(rows, width, gate), matrix<Real>(rows, width, up), y);
    return values(y);
}

TEST(Swiglu, ForwardAgreesWithNaive) {
    const auto gate = random_values(rows * width, 1, 3);
    const auto up = random_values(rows * width, 2);
    EXPECT_TRUE(close(forward<float>(gate, up), naive(gate, up), 1e-6));
    EXPECT_TRUE(close(forward<double>(gate, up), naive(gate, up), 1e-14));
}

TEST(Swiglu, InBf16IsTheRoundedOne) {
    const auto gate = matrix<float>(rows, width, random_values(rows * width, 1, 3));
    const auto up = matrix<float>(rows, width, random_values(rows * width, 2));
    const auto full = poisoned<float>(rows, width);
    const Matrix<BFloat16> half("half", rows, width);
    swiglu(gate, up, full);
    swiglu(gate, up, half);
    round_to_bf16(full);
    EXPECT_EQ(values(half), values(full));
}

TEST(Swiglu, MayTakeThePlaceOfUp) {
    const auto gate = random_values(rows * width, 1, 3);
    const auto up = random_values(rows * width, 2);
    const auto y = matrix<float>(rows, width, up);
    swiglu(matrix<float>(rows, width, gate), y, y);
    EXPECT_EQ(values(y), forward<float>(gate, up));
}

TEST(Swiglu, ExtremeGatesStayFinite) {
    std::vector<double> gate(rows * width, 200);
    for (std::size_t i = 0; i < gate.size(); i += 2) gate[i] = -200;
    const std::vector<double> up(rows * width, 1);
    EXPECT_TRUE(close(forward<float>(gate, up), naive(gate, up), 1e-6));
}

TEST(Swiglu, BackwardAgreesWithFiniteDifferences) {
    auto gate = random_values(rows * width, 3, 3);
    auto up = random_values(rows * width, 4);
    const auto dy = random_values(rows * width, 5);
    const auto loss = [&] { return inner_product(dy, naive(gate, up)); };
    const auto dgate = matrix<double>(rows, width, gate);
    const auto dup = matrix<double>(rows, width, up);
    swiglu_backward(matrix<double>(rows, width, dy), dgate, dup);
    EXPECT_TRUE(close(values(dgate), central_differences(loss, gate), 1e-8));
    EXPECT_TRUE(close(values(dup), central_differences(loss, up), 1e-8));
    const auto dgate_float = matrix<float>(rows, width, gate);
    const auto dup_float = matrix<float>(rows, width, up);
    swiglu_backward(matrix<float>(rows, width, dy), dgate_float, dup_float);
    EXPECT_TRUE(close(values(dgate_float), values(dgate), 1e-6));
    EXPECT_TRUE(close(values(dup_float), values(dup), 1e-6));
}

} // namespace
} // namespace lolcats::test::test_swiglu
