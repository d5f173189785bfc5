#pragma once
/// Named arrays gathered from the ranks that own their layers, for files that one rank writes.
#include "src/comm/communicator.hpp"
#include "src/train/parameters.hpp"

#include <string>
#include <vector>

namespace lolcats {

template <class T>
struct NamedArray {
    std::string name;
    io::Shape shape;
    std::vector<T> values;
};

std::vector<NamedArray<float>> named_values(const ParameterSet& parameters);
std::vector<NamedArray<double>> named_gradients(const ParameterSet& parameters);

/// All ranks' arrays, in rank order, on rank 0 of the group; empty elsewhere. Collective.
template <class T>
std::vector<NamedArray<T>> gather(const Communicator& group, const std::vector<NamedArray<T>>& mine);

} // namespace lolcats
