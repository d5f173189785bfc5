/// The end of the model with a teacher beside it: gradients against central differences of loss and divergence.
#include "src/model/lm_head.hpp"

#include "tests/model/small_config.hpp"
#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

#include <gtest/gtest.h>

namespace lolcats::test {
namespace {

constexpr int rows = LmHead<double>::rows_at_once + 7; // of two parts
constexpr double factor = 0.6;

class Distilled : public ::testing::Test {
protected:
    ModelConfig config = small_config(1);
    Gemm<double> gemm{Arithmetic::exact};
    std::vector<double> x = random_values(static_cast<std::size_t>(rows) * config.hidden_size, 1);
    std::vector<double> teacher = random_values(static_cast<std::size_t>(rows) * config.hidden_size, 2);
    Vector<std::int32_t> labels{"labels", rows};
    Vector<std::int32_t> predicted{"predicted", rows};
    LmHead<double> head{config, weights(), gemm};

    void SetUp() override {
        for (int i = 0; i < rows; ++i) labels(i) = i % 4 == 3 ? unlabelled : i * 7 % config.vocab_size;
    }

    [[nodiscard]] HeadWeights<double> weights() const {
        HeadWeights<double> result;
        result.norm = vector<double>(random_values(config.hidden_size, 3, 0.5));
        result.lm_head.full = matrix<double>(config.vocab_size, config.hidden_size,
                                             random_values(config.vocab_size * config.hidden_size, 4, 0.7));
        return result;
    }

    [[nodiscard]] Matrix<double> stream(const std::vector<double>& values) const {
        return matrix<double>(rows, config.hidden_size, values);
    }

    CrossEntropySum run(const Matrix<double>& at, double scale) {
        return head.loss_and_gradient(at, labels, scale, predicted, {stream(teacher), factor});
    }
};

TEST_F(Distilled, GradientAgreesWithFiniteDifferences) {
    const auto loss = [&] {
        const CrossEntropySum sum = run(stream(x), 0);
        return sum.loss + factor * sum.divergence;
    };
    const Matrix<double> gradient = stream(x);
    const CrossEntropySum sum = run(gradient, 0.3);
    const auto places = spread_indices(x.size(), 40);
    auto expected = central_differences(loss, x, places);
    for (double& g : expected) g *= 0.3;
    EXPECT_TRUE(close(picked(values(gradient), places), expected, 1e-6));
    EXPECT_GT(sum.divergence, 1);
}

TEST_F(Distilled, ALossOfItsOwnHasNoDivergence) {
    const CrossEntropySum alone = head.loss(stream(x), labels, predicted);
    EXPECT_EQ(alone.divergence, 0);
    EXPECT_EQ(run(stream(x), 0).loss, alone.loss);
    EXPECT_EQ(run(stream(x), 0).labelled, alone.labelled);
    teacher = x;
    EXPECT_NEAR(run(stream(x), 0).divergence, 0, 1e-9);
}

} // namespace
} // namespace lolcats::test
