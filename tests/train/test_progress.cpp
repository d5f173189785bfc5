#include "src/train/progress.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lolcats {
namespace {

/// A training whose loss at step i is losses[i]; evaluations see the value of the parameter.
struct Descent {
    explicit Descent(const Options& options) : options(options), progress(options, 1e-2) {
        index = parameters.add("layers.0.a", {1});
        parameters.allocate(true);
    }
    /// Until `stop` steps are done. What it went through is in `rates` and at the end in the parameter.
    bool run(int stop) {
        const Batches batches(options, 40);
        return progress.run(
            batches, parameters,
            [&](int step) {
                parameters.gradients(index)(0) = std::cos(step);
                rates.push_back(progress.rate());
                progress.update(parameters, 1 + std::sin(step), 1);
            },
            [&](int) { return std::abs(parameters.values(index)(0) + 0.013); }, [&] { return progress.step() < stop; });
    }
    const Options& options;
    Progress progress;
    ParameterSet parameters;
    int index;
    std::vector<double> rates;
};

TEST(Progress, ResumedGoesThroughTheSameNumbers) {
    for (const int held_out : {0, 2}) {
        Options options;
        options.validation = held_out;
        options.steps = 30;
        options.eval_every = 3;
        options.plateau_patience = 1;
        Descent whole(options);
        EXPECT_TRUE(whole.run(1000));
        EXPECT_LT(whole.rates.back(), 1e-2); // the schedule did something
        for (int stop = 0; stop < options.steps; ++stop) {
            Descent first(options);
            ASSERT_FALSE(first.run(stop));
            Descent second(options);
            second.progress.resume(first.progress.numbers());
            second.parameters.set_steps(first.parameters.steps());
            using Role = ParameterSet::Role;
            for (const Role role : {Role::values, Role::first_moments, Role::second_moments, Role::kept}) {
                if (first.parameters.array(role, 0).extent(0) == 0) continue;
                if (role == Role::kept) second.parameters.keep();
                second.parameters.array(role, 0)(0) = first.parameters.array(role, 0)(0);
            }
            EXPECT_TRUE(second.run(1000));
            first.rates.insert(first.rates.end(), second.rates.begin(), second.rates.end());
            EXPECT_EQ(first.rates, whole.rates) << stop;
            EXPECT_EQ(second.parameters.values(0)(0), whole.parameters.values(0)(0)) << stop;
            EXPECT_EQ(second.progress.numbers(), whole.progress.numbers()) << stop;
        }
    }
}

} // namespace
} // namespace lolcats
