#pragma once
#include <Kokkos_Core.hpp>

#include <chrono>

namespace lolcats::bench {

/// Seconds that `body` and the device work it starts take.
template <class Body>
double seconds(const Body& body) {
    Kokkos::fence("timed from here");
    const auto start = std::chrono::steady_clock::now();
    body();
    Kokkos::fence("timed up to here");
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace lolcats::bench
