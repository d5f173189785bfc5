#include "src/comm/mesh.hpp"

namespace lolcats {

Mesh make_mesh(const Communicator& world, int blocks, int pipeline_ranks) {
    const int width = pipeline_size(world.size(), blocks, pipeline_ranks);
    const int stage = world.rank() % width;
    const int replica = world.rank() / width;
    return {width, world.size() / width, stage, replica, world.split(replica, stage), world.split(stage, replica)};
}

} // namespace lolcats
