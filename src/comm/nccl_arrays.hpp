#pragma once
/// Arrays by NCCL, from GPU to GPU. A build without NCCL has nccl_missing.cpp in the place of nccl_arrays.cpp.
#include "src/comm/array_communicator.hpp"

namespace lolcats {

/// Only where why_not_nccl() is empty. Collective.
std::unique_ptr<ArrayCommunicator> make_nccl_arrays(const Communicator& group, const Patience& patience,
                                                    int most_blocks);

} // namespace lolcats
