#include "kernels/tile.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace lolcats::test {
namespace {

/// Runs `body(team)` on one team.
template <class Body>
void on_one_team(const Body& body) {
    Kokkos::parallel_for(
        "test_tile", Kokkos::TeamPolicy<Execution>(1, Kokkos::AUTO), KOKKOS_LAMBDA(const Team& team) { body(team); });
    Kokkos::fence();
}

/// Rows in memory are longer than the tile, and the surplus must stay as it was.
constexpr int margin = 3;

struct Product {
    int m, n, k;
    bool transpose_a;
    bool add;
};

std::vector<double> naive_product(const Product& p, double alpha, const std::vector<double>& a, int a_row,
                                  const std::vector<double>& b, int b_row, std::vector<double> c, int c_row) {
    for (int i = 0; i < p.m; ++i)
        for (int j = 0; j < p.n; ++j) {
            double sum = 0;
            for (int l = 0; l < p.k; ++l)
                sum += (p.transpose_a ? a[l * a_row + i] : a[i * a_row + l]) * b[l * b_row + j];
            c[i * c_row + j] = (p.add ? c[i * c_row + j] : 0) + alpha * sum;
        }
    return c;
}

// The device's lambdas are in functions of their own: nvcc takes none in the private body of a test.
template <class Real>
void multiply_on_device(const Product& p, Real alpha, const Vector<Real>& a, int a_row, const Vector<Real>& b,
                        const Vector<Real>& c, int row) {
    on_one_team(KOKKOS_LAMBDA(const Team& team) {
        const auto operand =
            p.transpose_a ? tile::transposed<Real>(a.data(), a_row) : tile::plain<Real>(a.data(), a_row);
        tile::multiply<Team, Real>(team, p.m, p.n, p.k, alpha, operand, b.data(), row, c.data(), row, p.add);
    });
}

template <class Real>
void transpose_on_device(int m, int n, const Vector<Real>& in, int in_row, const Vector<Real>& out, int out_row) {
    on_one_team(KOKKOS_LAMBDA(const Team& team) {
        tile::transpose<Team, Real>(team, m, n, in.data(), in_row, out.data(), out_row);
    });
}

void add_column_sums_on_device(int m, int n, const Vector<double>& in, int in_row, const Vector<double>& out) {
    on_one_team(KOKKOS_LAMBDA(const Team& team) {
        tile::add_column_sums<Team, double>(team, m, n, in.data(), in_row, out.data());
    });
}

template <class Real>
void expect_product(const Product& p, double tolerance) {
    const int a_rows = p.transpose_a ? p.k : p.m;
    const int a_row = (p.transpose_a ? p.m : p.k) + margin;
    const int row = p.n + margin;
    const auto a = random_values(a_rows * a_row, 1);
    const auto b = random_values(p.k * row, 2);
    const auto c = random_values(p.m * row, 3);
    const auto expected = naive_product(p, -0.75, a, a_row, b, row, c, row);
    const auto a_view = vector<Real>(a);
    const auto b_view = vector<Real>(b);
    const auto c_view = vector<Real>(c);
    multiply_on_device(p, Real(-0.75), a_view, a_row, b_view, c_view, row);
    EXPECT_TRUE(close(values(c_view), expected, tolerance));
}

class TileMultiply : public testing::TestWithParam<std::tuple<std::array<int, 3>, bool, bool>> {
protected:
    static Product product() {
        const auto& [size, transpose_a, add] = GetParam();
        return {size[0], size[1], size[2], transpose_a, add};
    }
};

TEST_P(TileMultiply, FloatAgreesWithNaive) {
    expect_product<float>(product(), 1e-6);
}
TEST_P(TileMultiply, DoubleAgreesWithNaive) {
    expect_product<double>(product(), 1e-14);
}

std::string product_name(const testing::TestParamInfo<std::tuple<std::array<int, 3>, bool, bool>>& info) {
    const auto& [size, transpose_a, add] = info.param;
    return "m" + std::to_string(size[0]) + "_n" + std::to_string(size[1]) + "_k" + std::to_string(size[2]) +
           (transpose_a ? "_transposed" : "_plain") + (add ? "_add" : "_overwrite");
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, TileMultiply,
    testing::Combine(testing::Values(std::array{1, 1, 1}, std::array{1, 17, 3}, std::array{3, 5, 7},
                                     std::array{4, 8, 16}, std::array{5, 31, 2}, std::array{7, 33, 13},
                                     std::array{16, 16, 16}, std::array{17, 47, 9}, std::array{64, 71, 31},
                                     std::array{13, 340, 70}, std::array{9, 280, 300}), // rows of B far apart
                     testing::Bool(), testing::Bool()),
    product_name);

TEST(Tile, OverwriteDoesNotReadTheResult) {
    const auto a = vector<float>({1, 2, 3, 4});
    const auto c = vector<float>(std::vector<double>(4, std::nan("")));
    multiply_on_device({.m = 2, .n = 2, .k = 2, .transpose_a = false, .add = false}, 1.0F, a, 2, a, c, 2);
    EXPECT_TRUE(close(values(c), {7, 10, 15, 22}, 0));
}

template <class Real>
void expect_transpose(int m, int n) {
    const auto in_view = vector<Real>(random_values(m * (n + margin), 4));
    const auto in = values(in_view);
    const auto out = vector<Real>(std::vector<double>(n * (m + margin), -1.0));
    transpose_on_device(m, n, in_view, n + margin, out, m + margin);
    std::vector<double> expected(n * (m + margin), -1.0);
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) expected[j * (m + margin) + i] = in[i * (n + margin) + j];
    EXPECT_TRUE(close(values(out), expected, 0));
}

TEST(Tile, Transpose) {
    for (const auto& [m, n] : {std::pair{5, 7}, {4, 4}, {8, 8}, {16, 9}, {33, 24}, {64, 64}}) {
        expect_transpose<float>(m, n);
        expect_transpose<double>(m, n);
    }
}

TEST(Tile, AddColumnSums) {
    constexpr int m = 9;
    constexpr int n = 13;
    const auto in = random_values(m * (n + margin), 5);
    auto expected = random_values(n, 6);
    const auto in_view = vector<double>(in);
    const auto out = vector<double>(expected);
    add_column_sums_on_device(m, n, in_view, n + margin, out);
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) expected[j] += in[i * (n + margin) + j];
    EXPECT_TRUE(close(values(out), expected, 1e-14));
}

TEST(Tile, RowReductions) {
    for (const int count : {1, 2, 7, 16, 33, 100}) {
        const auto a = random_values(count, 7);
        const auto b = random_values(count, 8);
        double dot = 0;
        double sum = 0;
        for (int i = 0; i < count; ++i) {
            dot += a[i] * b[i];
            sum += a[i];
        }
        EXPECT_NEAR(tile::dot(count, a.data(), b.data()), dot, 1e-13);
        EXPECT_NEAR(tile::sum(count, a.data()), sum, 1e-13);
        EXPECT_EQ(tile::maximum(count, a.data()), *std::max_element(a.begin(), a.end()));
        const std::vector<float> rounded(a.begin(), a.end());
        EXPECT_EQ(tile::maximum(count, rounded.data()), *std::max_element(rounded.begin(), rounded.end()));
    }
}

template <class Real>
void expect_exponentials(int count, Real sign, double tolerance) {
    const auto random = random_values(count, 9);
    const std::vector<Real> in(random.begin(), random.end());
    std::vector<Real> out(count + margin, Real(-1));
    const double sum = tile::exponentials(count, sign, in.data(), Real(0.5), out.data());
    double expected = 0;
    for (int i = 0; i < count; ++i) {
        const double exact = std::exp(static_cast<double>(sign * in[i] - Real(0.5)));
        EXPECT_NEAR(out[i], exact, tolerance * exact);
        expected += exact;
    }
    EXPECT_NEAR(sum, expected, tolerance * expected);
    for (int i = 0; i < margin; ++i) EXPECT_EQ(out[count + i], Real(-1));
    std::vector<Real> same = in;
    tile::exponentials(count, sign, same.data(), Real(0.5), same.data());
    same.resize(count + margin, Real(-1));
    EXPECT_EQ(same, out);
}

TEST(Tile, Exponentials) {
    for (const int count : {1, 2, 7, 8, 16, 33, 100})
        for (const int sign : {1, -1}) {
            expect_exponentials<float>(count, static_cast<float>(sign), 1e-6);
            expect_exponentials<double>(count, sign, 1e-14);
        }
}

/// What a loss must tell of is not lost on the way to it.
TEST(Tile, ExponentialsKeepNaN) {
    for (int place = 0; place < 21; ++place) {
        std::vector<float> row(21, 0.0F);
        row[place] = std::nanf("");
        EXPECT_TRUE(std::isnan(tile::exponentials(21, 1.0F, row.data(), tile::maximum(21, row.data()), row.data())));
        EXPECT_TRUE(std::isnan(row[place]));
    }
}

} // namespace
} // namespace lolcats::test
