#include "kernels/elementwise.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <limits>

namespace lolcats::test {
namespace {

TEST(Elementwise, AddToKeepsTheOrderOfElements) {
    const auto sums = vector<double>({10, 20, 30, 40, 50, 60});
    add_to(sums, matrix<float>(2, 3, {1, 2, 3, 4, 5, 6}));
    EXPECT_TRUE(close(values(sums), {11, 22, 33, 44, 55, 66}, 0));
}

TEST(Elementwise, AddOverBatchSumsTheSequencesOfEachHead) {
    const auto sums = vector<double>({100, 200, 300, 400});
    add_over_batch(3, 2, matrix<double>(6, 2, {1, 2, 3, 4, 10, 20, 30, 40, 0.5, 0.25, 0.125, 0}), sums);
    EXPECT_TRUE(close(values(sums), {111.5, 222.25, 333.125, 444}, 0));
}

/// Few long rows and many short ones, of sizes that nothing divides.
TEST(Elementwise, SumsOfAnyShape) {
    for (const auto& [rows, columns] : {std::pair{3, 5003}, std::pair{5003, 3}, std::pair{1, 1024}}) {
        const int size = rows * columns;
        const auto start = random_values(size, 1);
        const auto each = random_values(2 * size, 2);
        const auto once = vector<double>(start);
        add_to(once, matrix<double>(rows, columns, {each.begin(), each.begin() + size}));
        const auto twice = vector<double>(start);
        add_over_batch(2, rows, matrix<double>(2 * rows, columns, each), twice);
        std::vector<double> expected_once = start;
        std::vector<double> expected_twice = start;
        for (int i = 0; i < size; ++i) {
            expected_once[i] += each[i];
            expected_twice[i] += each[i];
            expected_twice[i] += each[size + i];
        }
        EXPECT_EQ(values(once), expected_once) << rows;
        EXPECT_EQ(values(twice), expected_twice) << rows;
    }
}

TEST(Elementwise, Add) {
    const auto a = matrix<float>(2, 2, {1, 2, 3, 4});
    add(a, matrix<float>(2, 2, {10, 20, 30, 40}));
    EXPECT_TRUE(close(values(a), {11, 22, 33, 44}, 0));
}

TEST(Elementwise, RoundToBf16IsToNearestEven) {
    // bf16 has 8 significant bits: between 256 and 512 its values are 2 apart.
    const auto a = matrix<float>(1, 6, {257, 259, 257.5, -257.5, 1.00390625, 3.140625});
    round_to_bf16(a);
    EXPECT_TRUE(close(values(a), {256, 260, 258, -258, 1, 3.140625}, 0));
}

TEST(Elementwise, NarrowedAndWidenedIsRounded) {
    for (const int size : {1, 6, 1031}) {
        const auto numbers = random_values(size, 5);
        const auto rounded = matrix<double>(1, size, numbers);
        round_to_bf16(rounded);
        const auto x = vector<double>(numbers);
        const Vector<BFloat16> half("half", size);
        narrow(x.data(), x.size(), half.data());
        widen(half.data(), half.size(), x.data());
        EXPECT_EQ(values(x), values(rounded)) << size;
    }
}

TEST(Elementwise, AllFiniteFindsOneBadElement) {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
        auto x = random_values(35, 1);
        EXPECT_TRUE(all_finite(matrix<float>(5, 7, x)));
        x[34] = bad;
        EXPECT_FALSE(all_finite(matrix<float>(5, 7, x)));
        EXPECT_FALSE(all_finite(matrix<double>(5, 7, x)));
    }
}

} // namespace
} // namespace lolcats::test
