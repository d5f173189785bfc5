#include "kernels/divergence.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lolcats::test::test_divergence {
namespace {

constexpr int rows = 5;
constexpr int vocabulary = 37;
const std::vector<double> labels = {3, -100, 36, 0, -100};

double log_probability(const std::vector<double>& logits, int row, int j) {
    double total = 0;
    for (int i = 0; i < vocabulary; ++i) total += std::exp(logits[row * vocabulary + i]);
    return logits[row * vocabulary + j] - std::log(total);
}

double naive(const std::vector<double>& student, const std::vector<double>& teacher) {
    double sum = 0;
    for (int row = 0; row < rows; ++row)
        for (int j = 0; labels[row] >= 0 && j < vocabulary; ++j) {
            const double log_p = log_probability(teacher, row, j);
            sum += std::exp(log_p) * (log_p - log_probability(student, row, j));
        }
    return sum;
}

struct Result {
    double sum;
    std::vector<double> student, teacher;
};

template <class Real>
Result run(const std::vector<double>& student, const std::vector<double>& teacher, double scale) {
    const auto z = matrix<Real>(rows, vocabulary, student);
    const auto t = matrix<Real>(rows, vocabulary, teacher);
    const double sum = divergence(z, vector<std::int32_t>(labels), static_cast<Real>(scale), t);
    return {sum, values(z), values(t)};
}

TEST(Divergence, AgreesWithTheFormulaAndLeavesLogits) {
    const auto student = random_values(rows * vocabulary, 1, 3);
    const auto teacher = random_values(rows * vocabulary, 2, 3);
    const Result exact = run<double>(student, teacher, 0);
    EXPECT_TRUE(close(exact.sum, naive(student, teacher), 1e-12));
    EXPECT_EQ(exact.student, student);
    EXPECT_EQ(exact.teacher, teacher);
    EXPECT_TRUE(close(run<float>(student, teacher, 0).sum, naive(student, teacher), 1e-5));
    EXPECT_TRUE(close(run<double>(student, student, 0).sum + 1, 1, 1e-12)) << "from itself there is none";
}

TEST(Divergence, GradientAgreesWithFiniteDifferences) {
    auto student = random_values(rows * vocabulary, 3, 2);
    const auto teacher = random_values(rows * vocabulary, 4, 2);
    auto expected = central_differences([&] { return naive(student, teacher); }, student);
    for (double& g : expected) g *= 0.25;
    const Result exact = run<double>(student, teacher, 0.25);
    EXPECT_TRUE(close(exact.teacher, expected, 1e-8));
    EXPECT_EQ(exact.student, student);
    EXPECT_TRUE(close(exact.sum, naive(student, teacher), 1e-12)) << "the sum itself is not scaled";
    EXPECT_TRUE(close(run<float>(student, teacher, 0.25).teacher, expected, 1e-5));
}

TEST(Divergence, LargeLogitsStayFinite) {
    std::vector<double> student(rows * vocabulary, -500);
    std::vector<double> teacher = student;
    for (int i = 0; i < rows; ++i) student[i * vocabulary + 5] = teacher[i * vocabulary + 6] = 500;
    const Result result = run<float>(student, teacher, 1);
    EXPECT_TRUE(close(result.sum, 3 * 1000, 1e-5));
    for (const double g : result.teacher) EXPECT_TRUE(std::isfinite(g));
}

TEST(Divergence, NaNReachesTheSum) {
    auto student = random_values(rows * vocabulary, 5);
    const auto teacher = random_values(rows * vocabulary, 6);
    auto broken = student;
    broken[2 * vocabulary + 7] = std::nan("");
    EXPECT_TRUE(std::isnan(run<float>(broken, teacher, 0).sum));
    EXPECT_TRUE(std::isnan(run<double>(student, broken, 1).sum));
}

} // namespace
} // namespace lolcats::test::test_divergence
