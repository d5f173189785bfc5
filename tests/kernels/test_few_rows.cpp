/// Products of few rows: right, and the same for a row whatever rows are beside it.
#include "kernels/gemm.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

namespace lolcats::test::test_few_rows {
namespace {

struct Size {
    int m, n, k;
};

constexpr std::initializer_list<Size> sizes = {{1, 1, 1},   {2, 3, 5},    {3, 33, 16}, {7, 40, 17},
                                               {8, 31, 64}, {13, 65, 70}, {16, 2, 129}};

Matrix<BFloat16> half(int rows, int columns, const std::vector<double>& values) {
    const Matrix<BFloat16> result("half", rows, columns);
    const auto host = Kokkos::create_mirror_view(result);
    for (std::size_t i = 0; i < values.size(); ++i) host.data()[i] = to_bfloat16(static_cast<float>(values[i]));
    Kokkos::deep_copy(result, host);
    return result;
}

/// c + x w^T + bias
std::vector<double> naive(const Size& s, const std::vector<double>& x, const std::vector<double>& w,
                          const std::vector<double>& bias, std::vector<double> c) {
    for (int i = 0; i < s.m; ++i)
        for (int j = 0; j < s.n; ++j) {
            c[i * s.n + j] += bias[j];
            for (int l = 0; l < s.k; ++l) c[i * s.n + j] += x[i * s.k + l] * w[j * s.k + l];
        }
    return c;
}

enum class Kind { full, half, float8 };

constexpr std::initializer_list<Kind> kinds = {Kind::full, Kind::half, Kind::float8};

Weight<float> weight(const Size& s, Kind kind, const std::vector<double>& w, const std::vector<double>& bias) {
    Weight<float> weight;
    if (kind == Kind::half) {
        weight.half = half(s.n, s.k, w);
    } else if (kind == Kind::float8) {
        weight.float8 = ScaledFloat8("float8", s.n, s.k);
        round_to_float8(matrix<float>(s.n, s.k, w), weight.float8);
    } else {
        weight.full = matrix<float>(s.n, s.k, w);
    }
    weight.bias = vector<float>(bias);
    return weight;
}

/// What the weight holds of w.
std::vector<double> held(Kind kind, const Weight<float>& weight, const std::vector<double>& w) {
    if (kind == Kind::half) return rounded_to_bf16(w);
    if (kind == Kind::full) return w;
    const Matrix<double> wide(uninitialized("wide"), weight.outputs(), weight.inputs());
    widen(weight.float8, wide.data());
    return values(wide);
}

TEST(FewRows, AgreeWithTheSums) {
    for (const Size& s : sizes)
        for (const Kind kind : kinds) {
            const auto x = random_values(s.m * s.k, 1);
            const auto bias = random_values(s.n, 3);
            const auto weights = weight(s, kind, random_values(s.n * s.k, 2), bias);
            const auto w = held(kind, weights, random_values(s.n * s.k, 2));
            const auto before = random_values(s.m * s.n, 4);
            Gemm<float> gemm(Arithmetic::bf16, RowCount::few);
            const auto added = matrix<float>(s.m, s.n, before);
            gemm.linear(matrix<float>(s.m, s.k, x), {{weights, added, added}});
            EXPECT_TRUE(close(values(added), naive(s, x, w, bias, before), 1e-6)) << s.m << " " << s.n << " " << s.k;
            const auto written = poisoned<float>(s.m, s.n);
            gemm.linear(matrix<float>(s.m, s.k, x), {{weights, written}});
            EXPECT_TRUE(close(values(written), naive(s, x, w, bias, std::vector<double>(s.m * s.n)), 1e-6));
        }
}

TEST(FewRows, AreTheSameBesideAnyOthers) {
    for (const Size& s : sizes)
        for (const Kind kind : kinds) {
            const auto x = random_values(s.m * s.k, 5);
            const auto weights = weight(s, kind, random_values(s.n * s.k, 6), random_values(s.n, 7));
            const auto all = matrix<float>(s.m, s.k, x);
            const auto together = poisoned<float>(s.m, s.n);
            const auto alone = poisoned<float>(s.m, s.n);
            Gemm<float> gemm(Arithmetic::f32, RowCount::few);
            gemm.linear(all, {{weights, together}});
            for (int i = 0; i < s.m; ++i) {
                const auto row = Kokkos::make_pair(i, i + 1);
                const Matrix<float> y = Kokkos::subview(alone, row, Kokkos::ALL);
                gemm.linear(Kokkos::subview(all, row, Kokkos::ALL), {{weights, y}});
            }
            EXPECT_EQ(values(together), values(alone)) << s.m << " " << s.n << " " << s.k;
        }
}

/// Low-rank updates are products with plain arrays.
TEST(FewRows, ScaleAndAddToPlainArrays) {
    constexpr Size s{5, 9, 21};
    const auto x = random_values(s.m * s.k, 8);
    auto w = random_values(s.n * s.k, 9);
    const auto before = random_values(s.m * s.n, 10);
    const auto c = matrix<float>(s.m, s.n, before);
    Gemm<float> gemm(Arithmetic::f32, RowCount::few);
    gemm.multiply(Transpose::no, Transpose::yes, 0.5F, matrix<float>(s.m, s.k, x), matrix<float>(s.n, s.k, w), 1, c);
    for (double& value : w) value *= 0.5;
    EXPECT_TRUE(close(values(c), naive(s, x, w, std::vector<double>(s.n), before), 1e-6));
}

} // namespace
} // namespace lolcats::test::test_few_rows
