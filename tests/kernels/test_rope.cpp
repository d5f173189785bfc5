#include "kernels/rope.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <cmath>
#include <complex>
#include <numbers>

namespace lolcats::test::test_rope {
namespace {

/// As complex numbers x_i + i x_{i + d/2} turned by position * frequency.
std::vector<double> naive(const std::vector<double>& frequencies, int length, int heads, std::vector<double> x) {
    const int half = static_cast<int>(frequencies.size());
    const int row_width = heads * 2 * half;
    const int rows = static_cast<int>(x.size()) / row_width;
    for (int row = 0; row < rows; ++row)
        for (int head = 0; head < heads; ++head)
            for (int i = 0; i < half; ++i) {
                double& low = x[row * row_width + head * 2 * half + i];
                double& high = x[row * row_width + head * 2 * half + half + i];
                const std::complex<double> turned =
                    std::complex<double>(low, high) * std::polar(1.0, (row % length) * frequencies[i]);
                low = turned.real();
                high = turned.imag();
            }
    return x;
}

constexpr int batch = 2;
constexpr int length = 11;
constexpr int heads = 3;
constexpr int head_dim = 10;

template <class Real>
std::vector<double> rotated(Rotation rotation, const std::vector<double>& x) {
    const RopeTable<Real> table(RopeForm{head_dim, 1e4, {}}, length + 5);
    const auto view = matrix<Real>(batch * length, heads * head_dim, x);
    rotate(table, rotation, length, head_dim, view);
    return values(view);
}

TEST(Rope, RotatesHalvesByPositionTimesFrequency) {
    const auto x = random_values(batch * length * heads * head_dim, 1);
    std::vector<double> frequencies;
    for (int i = 0; i < head_dim / 2; ++i) frequencies.push_back(std::pow(1e4, -2.0 * i / head_dim));
    EXPECT_TRUE(close(rope_frequencies(RopeForm{head_dim, 1e4, {}}), frequencies, 1e-15));
    EXPECT_TRUE(close(rotated<double>(Rotation::forward, x), naive(frequencies, length, heads, x), 1e-14));
    EXPECT_TRUE(close(rotated<float>(Rotation::forward, x), naive(frequencies, length, heads, x), 1e-6));
}

TEST(Rope, BackwardUndoesForward) {
    const auto x = random_values(batch * length * heads * head_dim, 2);
    const auto forward = rotated<double>(Rotation::forward, x);
    EXPECT_FALSE(close(forward, x, 0.1));
    EXPECT_TRUE(close(rotated<double>(Rotation::backward, forward), x, 1e-14));
}

/// dl/dx of l = dy . R x is the inverse rotation of dy.
TEST(Rope, BackwardIsTheTransposeOfForward) {
    const auto x = random_values(batch * length * heads * head_dim, 3);
    const auto dy = random_values(batch * length * heads * head_dim, 4);
    const auto y = rotated<double>(Rotation::forward, x);
    const auto dx = rotated<double>(Rotation::backward, dy);
    double along_y = 0;
    double along_x = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        along_y += dy[i] * y[i];
        along_x += dx[i] * x[i];
    }
    EXPECT_NEAR(along_x, along_y, 1e-11);
}

TEST(Rope, Llama3ScalingOfFrequencies) {
    const RopeForm llama{
        128, 500000,
        RopeScaling{
            .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 8192}};
    std::vector<double> expected;
    int kept = 0;
    int divided = 0;
    for (int i = 0; i < 64; ++i) {
        const double theta = std::pow(500000.0, -i / 64.0);
        const double turns = 8192 * theta / (2 * std::numbers::pi); // n0 / lambda
        if (turns > 4) {
            expected.push_back(theta);
            ++kept;
        } else if (turns < 1) {
            expected.push_back(theta / 8);
            ++divided;
        } else {
            const double m = (turns - 1) / 3;
            expected.push_back((1 - m) * theta / 8 + m * theta);
        }
    }
    EXPECT_GT(kept, 0);
    EXPECT_GT(divided, 0);
    EXPECT_LT(kept + divided, 64);
    const auto actual = rope_frequencies(llama);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(close(actual[i], expected[i], 1e-13)) << i;
}

/// Cosines at far positions are as good as the type allows: angles are formed in double.
TEST(Rope, TableIsAccurateAtFarPositions) {
    const RopeTable<float> table(RopeForm{4, 500000, {}}, 8192);
    const auto cosine = values(table.cosine);
    EXPECT_NEAR(cosine[8191 * 2], std::cos(8191.0), 1e-7);
    EXPECT_NEAR(values(table.sine)[8191 * 2 + 1], std::sin(8191 / std::sqrt(500000.0)), 1e-7);
}

TEST(Rope, TableOfAnyPositionsIsThatOfAllOfThem) {
    const RopeForm llama{8, 500000, {}};
    const RopeTable<float> all(llama, 3001);
    const RopeTable<float> some(llama, 3);
    const std::vector<int> at = {3000, 0, 17};
    set_positions(filled<Vector<double>>(rope_frequencies(llama), 4), filled<Vector<int>>({3000, 0, 17}, 3), 3, some);
    for (std::size_t row = 0; row < at.size(); ++row)
        for (int i = 0; i < 4; ++i) {
            EXPECT_NEAR(values(some.cosine)[row * 4 + i], values(all.cosine)[at[row] * 4 + i], 1e-7);
            EXPECT_NEAR(values(some.sine)[row * 4 + i], values(all.sine)[at[row] * 4 + i], 1e-7);
        }
}

} // namespace
} // namespace lolcats::test::test_rope
