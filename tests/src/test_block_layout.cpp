#include "src/block_layout.hpp"

#include "tests/support/errors.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

TEST(ShareTest, PartsAreContiguousAndEven) {
    for (int count : {0, 1, 5, 14, 126}) {
        for (int parts : {1, 2, 3, 14, 20}) {
            int next = 0;
            int previous = count;
            for (int i = 0; i < parts; ++i) {
                const Range part = share(count, parts, i);
                EXPECT_EQ(part.begin, next);
                EXPECT_GE(part.size(), count / parts);
                EXPECT_LE(part.size(), (count + parts - 1) / parts);
                EXPECT_LE(part.size(), previous) << "earlier parts are the larger";
                next = part.end;
                previous = part.size();
            }
            EXPECT_EQ(next, count);
        }
    }
    EXPECT_THROW(share(4, 2, 2), Error);
    EXPECT_THROW(share(4, 0, 0), Error);
}

TEST(BlockLayoutTest, TheLastBlockMayBeShorter) {
    const BlockLayout layout = make_block_layout(10, 4);
    EXPECT_EQ(layout.blocks, 3);
    EXPECT_EQ(layout.layers_of(0), (Range{0, 4}));
    EXPECT_EQ(layout.layers_of(1), (Range{4, 8}));
    EXPECT_EQ(layout.layers_of(2), (Range{8, 10}));
    for (int layer = 0; layer < 10; ++layer) EXPECT_TRUE(layout.layers_of(layout.block_of(layer)).contains(layer));
    EXPECT_THROW((void)layout.layers_of(3), Error);
    EXPECT_EQ(make_block_layout(126, 9).blocks, 14);
    EXPECT_EQ(make_block_layout(32, 0).block_layers, 32);
    EXPECT_EQ(make_block_layout(32, 0).blocks, 1);
    EXPECT_THROW(make_block_layout(32, 33), Error);
    EXPECT_THROW(make_block_layout(32, -1), Error);
}

TEST(PipelineSizeTest, LargestDivisorWithABlockForEachRank) {
    EXPECT_EQ(pipeline_size(1, 14, 0), 1);
    EXPECT_EQ(pipeline_size(14, 14, 0), 14);
    EXPECT_EQ(pipeline_size(28, 14, 0), 14);
    EXPECT_EQ(pipeline_size(4, 3, 0), 2);
    EXPECT_EQ(pipeline_size(7, 3, 0), 1);
    EXPECT_EQ(pipeline_size(4, 1, 0), 1);
    EXPECT_EQ(pipeline_size(12, 8, 3), 3);
}

TEST(PipelineSizeTest, RequestsThatCannotBeMetNameOneThatCan) {
    const auto message = [](int ranks, int blocks, int requested) {
        return test::message_of([=] { pipeline_size(ranks, blocks, requested); });
    };
    test::expect_contains(message(12, 8, 5), "does not divide the 12 ranks of this run: use 6");
    test::expect_contains(message(12, 3, 4), "only 3 blocks: use 3");
    test::expect_contains(message(12, 3, -1), "pipeline-ranks");
}

TEST(BlocksOfStageTest, EveryBlockHasOneOwner) {
    EXPECT_EQ(blocks_of_stage(5, 2, 0), (Range{0, 3}));
    EXPECT_EQ(blocks_of_stage(5, 2, 1), (Range{3, 5}));
}

} // namespace
} // namespace lolcats
