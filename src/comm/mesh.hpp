#pragma once
/// Who owns what: ranks form a mesh `pipeline x data`. A pipeline coordinate owns consecutive blocks of layers, a data
/// coordinate owns a share of the sequences; rank = replica * pipeline_ranks + stage.
#include "src/block_layout.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// One rank's place in the mesh, and the communicators of its row and column.
struct Mesh {
    int pipeline_ranks;
    int data_ranks;
    int stage;             ///< pipeline coordinate
    int replica;           ///< data coordinate
    Communicator pipeline; ///< same replica, ordered by stage
    Communicator data;     ///< same stage, ordered by replica
};

/// Collective over `world`.
Mesh make_mesh(const Communicator& world, int blocks, int pipeline_ranks);

/// What messages call the ranks of mesh.data.
std::string replicas_name(const Mesh& mesh);

} // namespace lolcats
