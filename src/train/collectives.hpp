#pragma once
/// What the ranks of a group do together with trained parameters: sums of gradients, and arrays gathered from the ranks
/// that own their layers.
#include "src/comm/communicator.hpp"
#include "src/train/named_arrays.hpp"
#include "src/train/parameters.hpp"

#include <vector>

namespace lolcats {

/// Adds the gradients of all ranks of the group. Collective.
void sum_gradients(const ParameterSet& parameters, const Communicator& group);

/// All ranks' arrays, in rank order, on rank 0 of the group; empty elsewhere. Collective.
template <class T>
std::vector<NamedArray<T>> gather(const Communicator& group, const std::vector<NamedArray<T>>& mine);

} // namespace lolcats
