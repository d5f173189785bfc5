#include "src/train/batches.hpp"

#include "lolcats/error.hpp"
#include "tests/support/errors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace lolcats {
namespace {

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

TEST(Batches, RefuseEpochsOfMoreStepsThanAreCounted) {
    Options options;
    options.batch_size = 4;
    options.epochs = std::numeric_limits<int>::max() / 3;
    EXPECT_EQ(Batches(options, 10).steps(), options.epochs * 3);
    ++options.epochs;
    const auto message = test::message_of([&] { Batches(options, 10); });
    test::expect_contains(message, "--epochs 715827883: with 3 steps each");
    test::expect_contains(message, "lower it, or give --steps");
    options.steps = 7;
    EXPECT_EQ(Batches(options, 10).steps(), 7);
}

TEST(Batches, FindTheFirstStepWithout) {
    Options options;
    options.batch_size = 2;
    options.validation = 1;
    options.epochs = 2;
    const Batches batches(options, 6); // {1, 2}, {3, 4} and {5}, twice
    EXPECT_EQ(batches.first_without({0, 9, 9, 9, 9, 9}), 6) << "those held out are of no step";
    EXPECT_EQ(batches.first_without({9, 0, 9, 9, 0, 9}), 6);
    EXPECT_EQ(batches.first_without({9, 9, 9, 9, 9, 0}), 2);
    EXPECT_EQ(batches.first_without({9, 9, 9, 0, 0, 0}), 1);
    EXPECT_EQ(batches.first_without({9, 0, 0, 0, 0, 0}), 0);
    options.steps = 2;
    EXPECT_EQ(Batches(options, 6).first_without({9, 9, 9, 9, 9, 0}), 2) << "a batch that is never reached";
}

TEST(Batches, FindTheFirstStepWithoutInEveryEpochsOrder) {
    Options options;
    options.batch_size = 2;
    options.epochs = 20;
    options.shuffle = true;
    const std::vector<std::int32_t> counts{1, 0, 1, 0, 1, 1, 1};
    int later = 0;
    for (options.seed = 0; options.seed < 50; ++options.seed) {
        const Batches batches(options, 7);
        int expected = 0;
        const auto has_some = [&](std::int64_t sequence) { return counts[sequence] > 0; };
        for (Sequences batch; expected < batches.steps(); ++expected) {
            batch = batches.at(expected);
            if (std::none_of(batch.begin(), batch.end(), has_some)) break;
        }
        EXPECT_EQ(batches.first_without(counts), expected);
        later += expected >= 4 && expected < batches.steps() ? 1 : 0;
    }
    EXPECT_GT(later, 10) << "beyond the first epoch";
}

TEST(MicroBatches, MayBeLargerThanAnyBatch) {
    const Sequences batch{3, 4, 5};
    EXPECT_EQ(micro_batches(batch, std::numeric_limits<int>::max(), 1, 0), std::vector<Sequences>{batch});
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

} // namespace
} // namespace lolcats
