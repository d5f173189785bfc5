#include "kernels/cross_entropy.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <cmath>

namespace lolcats::test::test_cross_entropy {
namespace {

constexpr int rows = 6;
constexpr int vocabulary = 41;
const std::vector<double> labels = {3, -100, 40, 0, -100, 17};

double naive_loss(const std::vector<double>& logits) {
    double loss = 0;
    for (int i = 0; i < rows; ++i) {
        if (labels[i] < 0) continue;
        double total = 0;
        for (int j = 0; j < vocabulary; ++j) total += std::exp(logits[i * vocabulary + j]);
        loss -= std::log(std::exp(logits[i * vocabulary + static_cast<int>(labels[i])]) / total);
    }
    return loss;
}

struct Result {
    CrossEntropySum sum;
    std::vector<double> logits;
    std::vector<double> predicted;
};

template <class Real>
Result run(const std::vector<double>& logits, double scale) {
    const auto view = matrix<Real>(rows, vocabulary, logits);
    const Vector<std::int32_t> predicted("predicted", rows);
    Kokkos::deep_copy(predicted, -1);
    const auto sum = cross_entropy(view, vector<std::int32_t>(labels), static_cast<Real>(scale), predicted);
    return {sum, values(view), values(predicted)};
}

TEST(CrossEntropy, LossCountAndPredictions) {
    const auto logits = random_values(rows * vocabulary, 1, 4);
    std::vector<double> best;
    for (int i = 0; i < rows; ++i) {
        const auto begin = logits.begin() + i * vocabulary;
        best.push_back(static_cast<double>(std::max_element(begin, begin + vocabulary) - begin));
    }
    for (const auto& result : {run<double>(logits, 0), run<float>(logits, 0)}) {
        EXPECT_TRUE(close(result.sum.loss, naive_loss(logits), 1e-6));
        EXPECT_EQ(result.sum.labelled, 4);
        EXPECT_EQ(result.predicted, best);
        EXPECT_EQ(result.logits, logits) << "without a scale logits stay";
    }
    EXPECT_TRUE(close(run<double>(logits, 0).sum.loss, naive_loss(logits), 1e-13));
}

TEST(CrossEntropy, GradientAgreesWithFiniteDifferences) {
    auto logits = random_values(rows * vocabulary, 2, 2);
    auto expected = central_differences([&] { return naive_loss(logits); }, logits);
    for (double& g : expected) g *= 0.125;
    const auto in_double = run<double>(logits, 0.125);
    EXPECT_TRUE(close(in_double.logits, expected, 1e-8));
    EXPECT_TRUE(close(in_double.sum.loss, naive_loss(logits), 1e-13)) << "the loss itself is not scaled";
    EXPECT_TRUE(close(run<float>(logits, 0.125).logits, expected, 1e-6));
}

TEST(CrossEntropy, LargeLogitsStayFinite) {
    std::vector<double> logits(rows * vocabulary, -1000);
    for (int i = 0; i < rows; ++i) logits[i * vocabulary + 5] = 1000;
    const auto result = run<float>(logits, 1);
    EXPECT_TRUE(close(result.sum.loss, 4 * 2000, 1e-6));
    for (const double g : result.logits) EXPECT_TRUE(std::isfinite(g));
}

TEST(CrossEntropy, NaNReachesTheLoss) {
    auto logits = random_values(rows * vocabulary, 3);
    logits[2 * vocabulary + 7] = std::nan("");
    EXPECT_TRUE(std::isnan(run<float>(logits, 0).sum.loss));
    EXPECT_TRUE(std::isnan(run<double>(logits, 1).sum.loss));
}

} // namespace
} // namespace lolcats::test::test_cross_entropy
