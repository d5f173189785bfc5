#include "src/train/named_arrays.hpp"

namespace lolcats {

namespace {

template <class T>
std::vector<T> to_host(const Vector<T>& array) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, array);
    return {host.data(), host.data() + host.extent(0)};
}

} // namespace

std::vector<NamedArray<float>> named_values(const ParameterSet& parameters) {
    std::vector<NamedArray<float>> arrays;
    for (int i = 0; const auto& entry : parameters.entries())
        arrays.push_back({entry.name, entry.shape, to_host(parameters.values(i++))});
    return arrays;
}

std::vector<NamedArray<double>> named_gradients(const ParameterSet& parameters) {
    std::vector<NamedArray<double>> arrays;
    for (int i = 0; const auto& entry : parameters.entries())
        arrays.push_back({entry.name, entry.shape, to_host(parameters.gradients(i++))});
    return arrays;
}

} // namespace lolcats
