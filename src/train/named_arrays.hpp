#pragma once
/// Parameters and gradients as named arrays on the host, for files.
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

} // namespace lolcats
