#include "lolcats/error.hpp"
#include "src/comm/mesh.hpp"

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
    const auto message = [](int ranks, int blocks, int requested) -> std::string {
        try {
            pipeline_size(ranks, blocks, requested);
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    };
    EXPECT_NE(message(12, 8, 5).find("does not divide the 12 ranks of this run: use 6"), std::string::npos);
    EXPECT_NE(message(12, 3, 4).find("only 3 blocks: use 3"), std::string::npos);
    EXPECT_NE(message(12, 3, -1).find("pipeline-ranks"), std::string::npos);
}

TEST(BlocksOfStageTest, EveryBlockHasOneOwner) {
    EXPECT_EQ(blocks_of_stage(5, 2, 0), (Range{0, 3}));
    EXPECT_EQ(blocks_of_stage(5, 2, 1), (Range{3, 5}));
}

TEST(MeshTest, CoordinatesAndCommunicatorsAgree) {
    const Communicator world = Communicator::world();
    for (int blocks : {1, 2, 3, 4, 8}) {
        const Mesh mesh = make_mesh(world, blocks, 0);
        EXPECT_EQ(mesh.pipeline_ranks * mesh.data_ranks, world.size());
        EXPECT_LE(mesh.pipeline_ranks, blocks);
        EXPECT_EQ(mesh.replica * mesh.pipeline_ranks + mesh.stage, world.rank());
        EXPECT_EQ(mesh.pipeline.size(), mesh.pipeline_ranks);
        EXPECT_EQ(mesh.pipeline.rank(), mesh.stage);
        EXPECT_EQ(mesh.data.size(), mesh.data_ranks);
        EXPECT_EQ(mesh.data.rank(), mesh.replica);
        std::int64_t replicas[] = {mesh.replica, -mesh.replica};
        mesh.pipeline.max(replicas, 2);
        EXPECT_EQ(replicas[0], -replicas[1]) << "a pipeline lies in one replica";
        std::int64_t stages[] = {mesh.stage, -mesh.stage};
        mesh.data.max(stages, 2);
        EXPECT_EQ(stages[0], -stages[1]) << "a data group holds one stage";
    }
    EXPECT_THROW(make_mesh(world, 64, world.size() + 1), Error);
}

} // namespace
} // namespace lolcats
