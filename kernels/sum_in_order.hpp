#pragma once
/// A sum that does not depend on the number of threads.
#include "kernels/views.hpp"

namespace lolcats {

/// terms[0] + ... + terms[n - 1], added on the host from left to right.
inline double sum_in_order(const Vector<double>& terms) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, terms);
    double total = 0;
    for (std::size_t i = 0; i < host.extent(0); ++i) total += host(i);
    return total;
}

} // namespace lolcats
