#pragma once
/// What the ranks of a group do together with trained parameters: sums of gradients, and arrays gathered from the ranks
/// that own their layers.
#include "src/comm/array_communicator.hpp"
#include "src/train/named_arrays.hpp"
#include "src/train/parameters.hpp"

#include <vector>

namespace lolcats {

/// Adds the gradients of all ranks of the group. They go in one piece: beside a step's compute they are few (36 MB for
/// nine layers of 405B at rank 4), and final only with its last micro-batch. Collective.
void sum_gradients(const ParameterSet& parameters, ArrayCommunicator& group);

/// All ranks' arrays, in rank order, on rank 0 of the group; empty elsewhere. Collective.
template <class T>
std::vector<NamedArray<T>> gather(const Communicator& group, const std::vector<NamedArray<T>>& mine);

} // namespace lolcats
