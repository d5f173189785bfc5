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
