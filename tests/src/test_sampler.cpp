#include "src/stages/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "lolcats/error.hpp"

namespace lolcats {
namespace {

const std::vector<float> logits = {0.0F, 2.0F, -1.0F, 1.0F, 2.0F};

Options settings(double temperature, double top_p, int top_k) {
    Options options;
    options.temperature = temperature;
    options.top_p = top_p;
    options.top_k = top_k;
    return options;
}

/// Shares of 40,000 draws.
std::map<int, double> shares(const Options& options) {
    constexpr int draws = 40000;
    Sampler sampler(options);
    std::map<int, double> result;
    for (int i = 0; i < draws; ++i) result[sampler.choose(logits, i % 100, i / 100)] += 1.0 / draws;
    return result;
}

/// What the shares of these tokens are to be at a temperature.
void expect_shares(const Options& options, const std::vector<int>& tokens) {
    double total = 0;
    for (const int token : tokens) total += std::exp(logits[token] / options.temperature);
    const auto found = shares(options);
    EXPECT_EQ(found.size(), tokens.size());
    for (const int token : tokens) {
        ASSERT_TRUE(found.contains(token));
        EXPECT_NEAR(found.at(token), std::exp(logits[token] / options.temperature) / total, 0.01) << token;
    }
}

TEST(Sampler, GreedyTakesTheFirstOfTheMostLikely) {
    Sampler sampler(settings(0, 0.1, 3));
    EXPECT_EQ(sampler.choose(logits, 0, 0), 1);
    EXPECT_EQ(sampler.choose(logits, 7, 9), 1);
}

TEST(Sampler, DrawsByTheProbabilities) {
    expect_shares(settings(1, 1, 0), {0, 1, 2, 3, 4});
    expect_shares(settings(2.5, 1, 0), {0, 1, 2, 3, 4});
}

TEST(Sampler, DrawsAmongTheMostLikely) {
    expect_shares(settings(1, 1, 3), {1, 3, 4});
    expect_shares(settings(1, 1, 100), {0, 1, 2, 3, 4});
    // At temperature 1 tokens 1 and 4 hold 0.392 each, 3 holds 0.144.
    expect_shares(settings(1, 0.38, 0), {1});
    expect_shares(settings(1, 0.4, 0), {1, 4});
    expect_shares(settings(1, 0.8, 0), {1, 3, 4});
    expect_shares(settings(1, 0.999999, 0), {0, 1, 2, 3, 4});
    // Of the three most likely, 1 and 4 hold 0.422 each.
    expect_shares(settings(1, 0.84, 3), {1, 4});
    expect_shares(settings(1, 0.85, 3), {1, 3, 4});
}

TEST(Sampler, DependsOnSeedPromptAndPositionAlone) {
    Options options = settings(1, 1, 0);
    const auto draws = [&](std::int64_t prompt, std::int64_t first, int before) {
        Sampler sampler(options);
        for (int i = 0; i < before; ++i) sampler.choose(logits, 50, i);
        std::vector<int> tokens;
        for (int i = 0; i < 40; ++i) tokens.push_back(sampler.choose(logits, prompt, first + i));
        return tokens;
    };
    EXPECT_EQ(draws(3, 0, 0), draws(3, 0, 5));
    EXPECT_NE(draws(3, 0, 0), draws(4, 0, 0));
    EXPECT_NE(draws(3, 0, 0), draws(3, 40, 0));
    const auto with_seed_0 = draws(3, 0, 0);
    options.seed = 1;
    EXPECT_NE(draws(3, 0, 0), with_seed_0);
}

TEST(Sampler, RefusesWhatIsNotFinite) {
    for (const double temperature : {0.0, 1.0})
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            Sampler sampler(settings(temperature, 1, 0));
            EXPECT_THROW(sampler.choose(std::vector<float>{1, bad, 2}, 0, 0), Error);
        }
}

} // namespace
} // namespace lolcats
