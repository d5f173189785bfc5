#pragma once
/// Arrays by MPI: straight from and to memory that the host can reach, else by way of pinned memory of the host.
#include "src/comm/array_communicator.hpp"

namespace lolcats {

/// Collective.
std::unique_ptr<ArrayCommunicator> make_mpi_arrays(const Communicator& group, const Patience& patience);

} // namespace lolcats
