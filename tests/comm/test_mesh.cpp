#include "lolcats/error.hpp"
#include "src/comm/mesh.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

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
