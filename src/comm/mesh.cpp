#include "src/comm/mesh.hpp"

#include <fmt/format.h>

namespace lolcats {

Mesh make_mesh(const Communicator& world, int blocks, int pipeline_ranks) {
    const int width = pipeline_size(world.size(), blocks, pipeline_ranks);
    const int stage = world.rank() % width;
    const int replica = world.rank() / width;
    return {width, world.size() / width, stage, replica, world.split(replica, stage), world.split(stage, replica)};
}

std::string replicas_name(const Mesh& mesh) {
    return fmt::format("replicas of pipeline stage {}", mesh.stage);
}

} // namespace lolcats
