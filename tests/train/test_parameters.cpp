#include "src/train/parameters.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lolcats {
namespace {

TEST(ParameterSet, StepIsClippedToTheNorm) {
    ParameterSet set;
    const int a = set.add("a", {2});
    const int b = set.add("b", {1, 2});
    set.allocate(true);
    set.gradients(a)(0) = 3;
    set.gradients(b)(1) = -4;
    ASSERT_DOUBLE_EQ(set.gradient_norm(), 5);
    // With beta1 = beta2 = 0 a step is rate * g / (|g| + epsilon), and a large epsilon shows the clipping of g.
    set.step({0, 0, 1e3, 0}, 1, set.gradient_norm(), 1);
    EXPECT_NEAR(set.values(a)(0), -0.6 / 1000.6, 1e-8);
    EXPECT_NEAR(set.values(b)(1), 0.8 / 1000.8, 1e-8);
    EXPECT_EQ(set.values(a)(1), 0);
}

TEST(ParameterSet, NormOfManyElementsIsRight) {
    ParameterSet set;
    const int a = set.add("a", {10007});
    set.allocate(true);
    double expected = 0;
    for (int i = 0; i < 10007; ++i) {
        set.gradients(a)(i) = std::sin(i);
        expected += std::sin(i) * std::sin(i);
    }
    EXPECT_NEAR(set.gradient_norm(), std::sqrt(expected), 1e-10);
}

/// As the kernels that read four floats at once take for granted.
TEST(ParameterSet, ArraysBeginAtSixteenBytes) {
    ParameterSet set;
    const std::vector<int> arrays{set.add("a", {9}), set.add("b", {3, 5}), set.add("c", {4}), set.add("d", {2})};
    set.allocate(true);
    for (const int i : arrays) {
        EXPECT_EQ(set.values(i).size(), set.entries()[i].size);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(set.values(i).data()) % 16, 0U) << i;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(set.gradients(i).data()) % 16, 0U) << i;
    }
}

TEST(ParameterSet, RestoresWhatWasKept) {
    ParameterSet set;
    const int a = set.add("a", {1});
    set.allocate(true);
    set.restore();
    EXPECT_EQ(set.values(a)(0), 0);
    set.values(a)(0) = 2;
    set.keep();
    set.values(a)(0) = 3;
    set.restore();
    EXPECT_EQ(set.values(a)(0), 2);
}

} // namespace
} // namespace lolcats
