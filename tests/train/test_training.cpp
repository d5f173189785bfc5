/// What trains: parameter sets, the plateau schedule, batches and the pipeline schedule.
#include "lolcats/error.hpp"
#include "src/train/batches.hpp"
#include "src/train/parameters.hpp"
#include "src/train/pipeline_schedule.hpp"
#include "src/train/progress.hpp"
#include "src/train/schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

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

TEST(PlateauSchedule, FallsAfterPatienceAndStopsAtTheFloor) {
    Options options;
    options.plateau_patience = 2;
    options.min_lr = 2e-4;
    PlateauSchedule schedule(options, 1e-2);
    schedule.evaluated(1.0);
    for (int i = 0; i < 2; ++i) schedule.evaluated(1.0);
    EXPECT_DOUBLE_EQ(schedule.rate(), 1e-2);
    schedule.evaluated(1.0);
    EXPECT_DOUBLE_EQ(schedule.rate(), 1e-3);
    schedule.evaluated(0.5);
    for (int i = 0; i < 3; ++i) schedule.evaluated(0.5);
    EXPECT_DOUBLE_EQ(schedule.rate(), 2e-4);
    for (int i = 0; i < 10; ++i) schedule.evaluated(0.5);
    EXPECT_DOUBLE_EQ(schedule.rate(), 2e-4);
}

TEST(PlateauSchedule, ConstantStays) {
    Options options;
    options.schedule = "constant";
    options.plateau_patience = 0;
    PlateauSchedule schedule(options, 1e-2);
    for (int i = 0; i < 10; ++i) schedule.evaluated(1.0);
    EXPECT_DOUBLE_EQ(schedule.rate(), 1e-2);
}

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

TEST(Batches, CoverEachEpochOnceAndLeaveValidationOut) {
    Options options;
    options.batch_size = 4;
    options.validation = 3;
    options.epochs = 2;
    options.shuffle = true;
    const Batches batches(options, 13);
    ASSERT_EQ(batches.steps(), 6);
    EXPECT_EQ(batches.validation(), (Sequences{0, 1, 2}));
    Sequences first, second;
    for (int step = 0; step < 3; ++step) {
        for (const auto s : batches.at(step)) first.push_back(s);
        for (const auto s : batches.at(step + 3)) second.push_back(s);
    }
    EXPECT_EQ(batches.at(2).size(), 2U);
    EXPECT_NE(first, second);
    for (auto* epoch : {&first, &second}) {
        std::sort(epoch->begin(), epoch->end());
        EXPECT_EQ(*epoch, (Sequences{3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
    }
}

TEST(Batches, RefusesToHoldEverythingOut) {
    Options options;
    options.validation = 5;
    EXPECT_THROW(Batches(options, 5), Error);
}

TEST(MicroBatches, DealEverySequenceToOneReplica) {
    const Sequences batch{7, 8, 9, 10, 11, 12, 13};
    for (int replicas : {1, 2, 3, 5, 9}) {
        Sequences seen;
        for (int replica = 0; replica < replicas; ++replica)
            for (const auto& micro : micro_batches(batch, 2, replicas, replica)) {
                EXPECT_LE(micro.size(), 2U);
                seen.insert(seen.end(), micro.begin(), micro.end());
            }
        EXPECT_EQ(seen, batch) << replicas << " replicas";
    }
}

TEST(PipelineSchedule, RunsEachPassOnceWithBoundedFlight) {
    for (int stages : {1, 2, 4, 14})
        for (int stage = 0; stage < stages; ++stage)
            for (int count : {0, 1, 3, 8}) {
                int forwards = 0, backwards = 0, most = 0;
                const auto forward = [&](int i) {
                    EXPECT_EQ(i, forwards++);
                    most = std::max(most, forwards - backwards);
                };
                const auto backward = [&](int i) {
                    EXPECT_EQ(i, backwards++);
                    EXPECT_LE(backwards, forwards);
                };
                run_one_forward_one_backward(stage, stages, count, forward, backward);
                EXPECT_EQ(forwards, count);
                EXPECT_EQ(backwards, count);
                EXPECT_LE(most, stages - stage);
            }
}

} // namespace
} // namespace lolcats
