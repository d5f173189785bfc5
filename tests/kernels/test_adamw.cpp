#include "kernels/adamw.hpp"

#include "tests/support/arrays.hpp"
#include "tests/support/compare.hpp"

#include <cmath>

namespace lolcats::test {
namespace {

constexpr int count = 101;

struct NaiveAdamW {
    AdamWSettings settings;
    std::vector<double> values;
    std::vector<double> m = std::vector<double>(count);
    std::vector<double> v = std::vector<double>(count);

    void step(double rate, double gradient_scale, int t, const std::vector<double>& gradients) {
        for (int i = 0; i < count; ++i) {
            const double g = gradients[i] * gradient_scale;
            m[i] = settings.beta1 * m[i] + (1 - settings.beta1) * g;
            v[i] = settings.beta2 * v[i] + (1 - settings.beta2) * g * g;
            const double m_hat = m[i] / (1 - std::pow(settings.beta1, t));
            const double v_hat = v[i] / (1 - std::pow(settings.beta2, t));
            values[i] -= rate * settings.weight_decay * values[i];
            values[i] -= rate * m_hat / (std::sqrt(v_hat) + settings.epsilon);
        }
    }
};

void expect_steps(const AdamWSettings& settings, double rate, double gradient_scale) {
    const auto start = random_values(count, 1);
    NaiveAdamW naive{.settings = settings, .values = start};
    const auto parameters = vector<float>(start);
    const Vector<float> m("m", count);
    const Vector<float> v("v", count);
    for (int t = 1; t <= 20; ++t) {
        const auto gradients = random_values(count, 100 + t, 0.3);
        const auto view = vector<double>(gradients);
        adamw(settings, rate, gradient_scale, t, view, m, v, parameters);
        naive.step(rate, gradient_scale, t, gradients);
        EXPECT_EQ(values(view), gradients);
    }
    EXPECT_TRUE(close(values(parameters), naive.values, 2e-6));
    EXPECT_TRUE(close(values(m), naive.m, 2e-6));
    EXPECT_TRUE(close(values(v), naive.v, 2e-5));
    EXPECT_FALSE(close(naive.values, start, 1e-3)) << "the steps must move something";
}

TEST(AdamW, TwentySteps) {
    expect_steps({.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0}, 1e-2, 1);
}
TEST(AdamW, ClippedGradients) {
    expect_steps({.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0}, 1e-2, 0.03);
}
TEST(AdamW, WeightDecayIsDecoupled) {
    expect_steps({.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.5}, 3e-2, 1);
}
TEST(AdamW, LargeEpsilonStandsOutsideTheRoot) {
    expect_steps({.beta1 = 0.9, .beta2 = 0.99, .epsilon = 0.1, .weight_decay = 0}, 1e-1, 1);
}

TEST(AdamW, FirstStepMovesByTheLearningRate) {
    const auto parameters = vector<float>({0, 0, 0});
    const Vector<float> m("m", 3);
    const Vector<float> v("v", 3);
    adamw({.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0}, 1e-2, 1, 1, vector<double>({5, -2e-3, 0}),
          m, v, parameters);
    EXPECT_TRUE(close(values(parameters), {-1e-2, 1e-2, 0}, 1e-4));
}

} // namespace
} // namespace lolcats::test
