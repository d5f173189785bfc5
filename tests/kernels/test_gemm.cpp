#include "kernels/gemm.hpp"

#include "kernels/exact_gemm.hpp"
#include "kernels/products.hpp"
#include "lolcats/error.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <array>
#include <fstream>
#include <string>
#include <tuple>

namespace lolcats::test::test_gemm {
namespace {

/// Whether /proc/cpuinfo lists bf16 instructions, or arrays are on a GPU: independent of what the kernels ask.
bool processor_has_bf16() {
    if (!runs_on_host) return true;
    std::ifstream file("/proc/cpuinfo");
    for (std::string word; file >> word;)
        if (word == "avx512_bf16" || word == "amx_bf16") return true;
    return false;
}

/// c = alpha op(a) op(b) + beta c, row by row.
std::vector<double> naive(bool ta, bool tb, int m, int n, int k, double alpha, const std::vector<double>& a,
                          const std::vector<double>& b, double beta, std::vector<double> c) {
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            double sum = 0;
            for (int l = 0; l < k; ++l) sum += (ta ? a[l * m + i] : a[i * k + l]) * (tb ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * n + j]);
        }
    return c;
}

Transpose op(bool transpose) {
    return transpose ? Transpose::yes : Transpose::no;
}

template <class Real>
void expect_multiply(Arithmetic arithmetic, bool ta, bool tb, std::array<int, 3> size, double beta, double tolerance) {
    const auto [m, n, k] = size;
    const auto a = random_values(m * k, 1);
    const auto b = random_values(k * n, 2);
    const auto c = random_values(m * n, 3);
    const auto a_view = ta ? matrix<Real>(k, m, a) : matrix<Real>(m, k, a);
    const auto b_view = tb ? matrix<Real>(n, k, b) : matrix<Real>(k, n, b);
    const auto c_view = beta == 0 ? poisoned<Real>(m, n) : matrix<Real>(m, n, c);
    Gemm<Real> gemm(arithmetic);
    gemm.multiply(op(ta), op(tb), Real(1.5), a_view, b_view, static_cast<Real>(beta), c_view);
    EXPECT_TRUE(close(values(c_view), naive(ta, tb, m, n, k, 1.5, a, b, beta, c), tolerance));
}

class GemmMultiply : public testing::TestWithParam<std::tuple<std::array<int, 3>, bool, bool, double>> {};

TEST_P(GemmMultiply, FloatByLibrary) {
    const auto& [size, ta, tb, beta] = GetParam();
    expect_multiply<float>(Arithmetic::f32, ta, tb, size, beta, 2e-6);
}
TEST_P(GemmMultiply, FloatExact) {
    const auto& [size, ta, tb, beta] = GetParam();
    expect_multiply<float>(Arithmetic::exact, ta, tb, size, beta, 5e-8);
}
TEST_P(GemmMultiply, DoubleExact) {
    const auto& [size, ta, tb, beta] = GetParam();
    expect_multiply<double>(Arithmetic::exact, ta, tb, size, beta, 1e-14);
}

std::string multiply_name(const testing::TestParamInfo<std::tuple<std::array<int, 3>, bool, bool, double>>& info) {
    const auto& [size, ta, tb, beta] = info.param;
    return std::to_string(size[0]) + "x" + std::to_string(size[1]) + "x" + std::to_string(size[2]) +
           (ta ? "_T" : "_N") + (tb ? "T" : "N") +
           (beta == 0   ? "_beta_zero"
            : beta == 1 ? "_beta_one"
                        : "_beta_minus_half");
}

INSTANTIATE_TEST_SUITE_P(Shapes, GemmMultiply,
                         testing::Combine(testing::Values(std::array{1, 1, 1}, std::array{3, 5, 7},
                                                          std::array{17, 33, 65}, std::array{67, 49, 130},
                                                          std::array{131, 143, 21}),
                                          testing::Bool(), testing::Bool(), testing::Values(0.0, 1.0, -0.5)),
                         multiply_name);

TEST(Gemm, RefusesShapesThatDoNotFit) {
    Gemm<float> gemm(Arithmetic::f32);
    const Matrix<float> a("a", 2, 3);
    const Matrix<float> b("b", 4, 5);
    const Matrix<float> c("c", 2, 5);
    EXPECT_THROW(gemm.multiply(Transpose::no, Transpose::no, 1, a, b, 0, c), Error);
    Weight<float> weight;
    weight.full = b;
    EXPECT_THROW(gemm.linear(a, {{weight, c}}), Error);
    EXPECT_THROW(gemm.linear_backward(a, weight, c), Error);
}

/// Rows of a matrix multiply to the same bits alone as together with others.
TEST(Gemm, ExactProductsDoNotDependOnTheGroupingOfRows) {
    constexpr int m = 131;
    constexpr int n = 143;
    constexpr int k = 53;
    const auto a = matrix<float>(m, k, random_values(m * k, 1));
    const auto b = matrix<float>(k, n, random_values(k * n, 2));
    const auto whole = poisoned<float>(m, n);
    const auto parts = poisoned<float>(m, n);
    const Factor<float> right{b.data(), n, false};
    exact_multiply({m, n, k}, 1.0F, {a.data(), k, false}, right, 0.0F, whole.data(), n);
    for (int row = 0; row < m; row += 9)
        exact_multiply({std::min(9, m - row), n, k}, 1.0F, {a.data() + row * k, k, false}, right, 0.0F,
                       parts.data() + row * n, n);
    EXPECT_TRUE(close(values(parts), values(whole), 0));
}

enum class Storage { full, half, float8 };

struct LinearCase {
    Arithmetic arithmetic;
    Storage storage;
    bool bias;
    bool add;
    std::array<int, 2> sizes = {67, 35}; ///< inputs, outputs
};

/// bf16 value nearest to x, by way of arithmetic instead of bits: 8 significant bits, ties to even.
double rounded_to_bf16(double x) {
    if (x == 0) return 0;
    int exponent = 0;
    const double fraction = std::frexp(x, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

std::vector<double> rounded_to_bf16(std::vector<double> x) {
    for (double& value : x) value = rounded_to_bf16(value);
    return x;
}

ScaledFloat8 in_float8(int rows, int columns, const std::vector<double>& numbers) {
    const ScaledFloat8 result("float8", rows, columns);
    round_to_float8(matrix<float>(rows, columns, numbers), result);
    return result;
}

std::vector<double> rounded_to_float8(int rows, int columns, const std::vector<double>& numbers) {
    const Matrix<double> wide(uninitialized("wide"), rows, columns);
    widen(in_float8(rows, columns, numbers), wide.data());
    return values(wide);
}

template <class Real>
Weight<Real> make_weight(const LinearCase& c, int outputs, int inputs, const std::vector<double>& numbers,
                         const std::vector<double>& bias) {
    Weight<Real> weight;
    if (c.storage == Storage::full) {
        weight.full = matrix<Real>(outputs, inputs, numbers);
    } else if (c.storage == Storage::float8) {
        weight.float8 = in_float8(outputs, inputs, numbers);
    } else {
        weight.half = Matrix<BFloat16>("half", outputs, inputs);
        const auto host = Kokkos::create_mirror_view(weight.half);
        for (std::size_t i = 0; i < numbers.size(); ++i) host.data()[i] = to_bfloat16(static_cast<float>(numbers[i]));
        Kokkos::deep_copy(weight.half, host);
    }
    if (c.bias) weight.bias = vector<Real>(bias);
    return weight;
}

template <class Real>
void expect_linear(const LinearCase& c, double tolerance) {
    const auto [inputs, outputs] = c.sizes;
    const int rows = inputs % 16 == 0 ? 16 : 13;
    const bool in_half = c.storage != Storage::full && (c.arithmetic == Arithmetic::bf16 ||
                                                        (c.arithmetic == Arithmetic::fp8 && processor_has_bf16()));
    const auto prepare = [&](std::vector<double> x) { return in_half ? rounded_to_bf16(std::move(x)) : x; };
    const auto numbers = random_values(outputs * inputs, 1);
    auto w = numbers;
    if (c.storage == Storage::half) w = rounded_to_bf16(w);
    if (c.storage == Storage::float8) w = rounded_to_float8(outputs, inputs, w);
    const bool in_float8 = c.arithmetic == Arithmetic::fp8 && c.storage == Storage::float8 &&
                           Products::has_float8({rows, outputs, inputs});
    if (in_half && !in_float8) w = rounded_to_bf16(w);
    const auto bias = random_values(outputs, 2);
    const auto x = prepare(random_values(rows * inputs, 3));
    const auto rounded_x = in_float8 ? rounded_to_float8(rows, inputs, x) : x;
    const auto dy = prepare(random_values(rows * outputs, 4));
    const auto old_y = random_values(rows * outputs, 5);
    const auto old_dx = random_values(rows * inputs, 6);

    const auto weight = make_weight<Real>(c, outputs, inputs, numbers, bias);
    EXPECT_EQ(weight.outputs(), outputs);
    EXPECT_EQ(weight.inputs(), inputs);
    const auto y = c.add ? matrix<Real>(rows, outputs, old_y) : poisoned<Real>(rows, outputs);
    const auto dx = c.add ? matrix<Real>(rows, inputs, old_dx) : poisoned<Real>(rows, inputs);
    Gemm<Real> gemm(c.arithmetic);
    gemm.linear(matrix<Real>(rows, inputs, x), {{weight, y, c.add ? y : Matrix<Real>()}});
    gemm.linear_backward(matrix<Real>(rows, outputs, dy), weight, dx, c.add);

    const double beta = c.add ? 1 : 0;
    auto expected = naive(false, true, rows, outputs, inputs, 1, rounded_x, w, beta, old_y);
    for (int i = 0; c.bias && i < rows * outputs; ++i) expected[i] += bias[i % outputs];
    const bool adds_with_14_bits = in_float8 && !runs_on_host; // as 8-bit tensor cores do
    EXPECT_TRUE(close(values(y), expected, adds_with_14_bits ? 1e-3 : tolerance)) << "linear";
    const auto y_apart = poisoned<Real>(rows, outputs);
    const auto added = c.add ? matrix<Real>(rows, outputs, old_y) : Matrix<Real>();
    gemm.linear(matrix<Real>(rows, inputs, x), {{weight, y_apart, added}});
    EXPECT_EQ(values(y_apart), values(y));
    if (in_half) w = rounded_to_bf16(w);
    EXPECT_TRUE(close(values(dx), naive(false, false, rows, inputs, outputs, 1, dy, w, beta, old_dx), tolerance))
        << "linear_backward";
}

class GemmLinear : public testing::TestWithParam<std::tuple<Arithmetic, Storage, bool, bool>> {
protected:
    static LinearCase linear_case() {
        const auto& [arithmetic, storage, bias, add] = GetParam();
        return {arithmetic, storage, bias, add};
    }
};

TEST_P(GemmLinear, FloatAgreesWithNaive) {
    if (linear_case().arithmetic == Arithmetic::bf16 && !processor_has_bf16())
        GTEST_SKIP() << "this processor has no bf16 instructions";
    expect_linear<float>(linear_case(), 2e-6);
}

/// Multiples of 16, of which a GPU has 8-bit products.
TEST_P(GemmLinear, FloatAgreesWithNaiveAtSizesOfTensorCores) {
    if (linear_case().arithmetic == Arithmetic::bf16 && !processor_has_bf16())
        GTEST_SKIP() << "this processor has no bf16 instructions";
    LinearCase c = linear_case();
    c.sizes = {96, 48};
    expect_linear<float>(c, 2e-6);
}

TEST_P(GemmLinear, DoubleAgreesWithNaive) {
    expect_linear<double>({Arithmetic::exact, linear_case().storage, linear_case().bias, linear_case().add}, 1e-14);
}

std::string linear_name(const testing::TestParamInfo<std::tuple<Arithmetic, Storage, bool, bool>>& info) {
    const auto& [arithmetic, storage, bias, add] = info.param;
    return std::string(arithmetic == Arithmetic::exact  ? "exact"
                       : arithmetic == Arithmetic::f32  ? "f32"
                       : arithmetic == Arithmetic::bf16 ? "bf16"
                                                        : "fp8") +
           (storage == Storage::half     ? "_half_weight"
            : storage == Storage::float8 ? "_float8_weight"
                                         : "_full_weight") +
           (bias ? "_bias" : "") + (add ? "_add" : "_overwrite");
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, GemmLinear,
    testing::Combine(testing::Values(Arithmetic::exact, Arithmetic::f32, Arithmetic::bf16, Arithmetic::fp8),
                     testing::Values(Storage::full, Storage::half, Storage::float8), testing::Bool(), testing::Bool()),
    linear_name);

/// Weights of every kind after one another: x is rounded once for those that want it so, and anew for the next x.
TEST(Gemm, SeveralWeightsGiveWhatEachGivesAlone) {
    constexpr int rows = 16;
    constexpr int inputs = 48;
    constexpr std::array outputs = {32, 16, 5, 48, 64};
    constexpr std::array kinds = {Storage::float8, Storage::half, Storage::float8, Storage::full, Storage::float8};
    for (const Arithmetic arithmetic : {Arithmetic::exact, Arithmetic::f32, Arithmetic::bf16, Arithmetic::fp8}) {
        if (arithmetic == Arithmetic::bf16 && !processor_has_bf16()) continue;
        Gemm<float> gemm(arithmetic);
        for (const int seed : {1, 2}) {
            const auto x = matrix<float>(rows, inputs, random_values(rows * inputs, seed));
            std::vector<Weight<float>> weights;
            std::vector<Matrix<float>> together;
            for (std::size_t i = 0; i < kinds.size(); ++i) {
                weights.push_back(make_weight<float>({arithmetic, kinds[i], true, false}, outputs[i], inputs,
                                                     random_values(outputs[i] * inputs, 10 + i),
                                                     random_values(outputs[i], 20 + i)));
                together.push_back(poisoned<float>(rows, outputs[i]));
            }
            gemm.linear(x, {{weights[0], together[0]},
                            {weights[1], together[1]},
                            {weights[2], together[2]},
                            {weights[3], together[3]},
                            {weights[4], together[4]}});
            for (std::size_t i = 0; i < kinds.size(); ++i) {
                const auto alone = poisoned<float>(rows, outputs[i]);
                Gemm<float>(arithmetic).linear(x, {{weights[i], alone}});
                EXPECT_EQ(values(together[i]), values(alone)) << static_cast<int>(arithmetic) << " " << i;
            }
        }
    }
}

/// Writes x where products take it, and remembers in which type.
struct CopyOf {
    Matrix<float> x;
    bool& in_half;

    void operator()(const Matrix<float>& out) const {
        Kokkos::deep_copy(out, x);
        in_half = false;
    }
    void operator()(const Matrix<BFloat16>& out) const {
        const Matrix<float> from = x;
        Kokkos::parallel_for(
            "copy_in_bf16", x.size(), KOKKOS_LAMBDA(int i) { out.data()[i] = to_bfloat16(from.data()[i]); });
        in_half = true;
    }
};

/// An input made where products take it from is as good as one that they round; with an 8-bit product or one in float
/// among them it is made in float.
TEST(Gemm, InputsAreMadeWhereProductsTakeThemFrom) {
    constexpr int rows = 16;
    constexpr int inputs = 48;
    constexpr int outputs = 32;
    const auto x = matrix<float>(rows, inputs, random_values(rows * inputs, 1));
    const auto residual = matrix<float>(rows, outputs, random_values(rows * outputs, 4));
    for (const Arithmetic arithmetic : {Arithmetic::exact, Arithmetic::f32, Arithmetic::bf16, Arithmetic::fp8})
        for (const Storage second : {Storage::full, Storage::half, Storage::float8}) {
            if (arithmetic == Arithmetic::bf16 && !processor_has_bf16()) continue;
            const auto weight_of = [&](Storage storage, int seed) {
                return make_weight<float>({arithmetic, storage, true, false}, outputs, inputs,
                                          random_values(outputs * inputs, seed), random_values(outputs, seed + 1));
            };
            const auto first_weight = weight_of(Storage::half, 2);
            const auto second_weight = weight_of(second, 5);
            const auto make_outputs = [] {
                return std::array{poisoned<float>(rows, outputs), poisoned<float>(rows, outputs)};
            };
            const auto y = make_outputs();
            const auto expected = make_outputs();
            Gemm<float> gemm(arithmetic);
            gemm.linear(x, {{first_weight, expected[0]}, {second_weight, expected[1], residual}});
            bool in_half = false;
            gemm.linear_of(poisoned<float>(rows, inputs), CopyOf{x, in_half},
                           {{first_weight, y[0]}, {second_weight, y[1], residual}});
            const bool bf16 = arithmetic == Arithmetic::bf16 && second != Storage::full;
            const bool beside_fp8 = arithmetic == Arithmetic::fp8 && second == Storage::half && processor_has_bf16();
            EXPECT_EQ(in_half, bf16 || beside_fp8);
            EXPECT_EQ(values(y[0]), values(expected[0]));
            EXPECT_EQ(values(y[1]), values(expected[1]));
        }
}

/// One object serves changing shapes: its buffers and compiled primitives must not be mixed up.
TEST(Gemm, OneObjectServesManyShapes) {
    const bool bf16 = processor_has_bf16();
    Gemm<float> gemm(bf16 ? Arithmetic::bf16 : Arithmetic::f32);
    for (const auto& [rows, outputs, inputs] : {std::array{5, 8, 24}, std::array{24, 5, 8}, std::array{5, 24, 8},
                                                std::array{9, 8, 24}, std::array{5, 8, 24}}) {
        const auto x = rounded_to_bf16(random_values(rows * inputs, rows));
        const auto w = rounded_to_bf16(random_values(outputs * inputs, outputs));
        const auto weight = make_weight<float>({Arithmetic::bf16, Storage::half, false, false}, outputs, inputs, w, {});
        const auto y = poisoned<float>(rows, outputs);
        gemm.linear(matrix<float>(rows, inputs, x), {{weight, y}});
        EXPECT_TRUE(close(values(y),
                          naive(false, true, rows, outputs, inputs, 1, x, w, 0, std::vector<double>(rows * outputs)),
                          2e-6));
    }
}

TEST(Gemm, MeasuredArithmeticIsOneThisProcessorHas) {
    const Arithmetic measured = measure_arithmetic();
    if (processor_has_bf16())
        EXPECT_NE(measured, Arithmetic::exact);
    else
        EXPECT_EQ(measured, Arithmetic::f32);
}

} // namespace
} // namespace lolcats::test::test_gemm
