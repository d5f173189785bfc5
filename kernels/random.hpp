#pragma once
/// Random numbers that are hashes of what they are for: the same whatever the number of threads or ranks, and after a
/// restart.
#include "kernels/function.hpp"

#include <cstdint>

namespace lolcats {

/// Well-mixed 64-bit hash (splitmix64's finaliser), for building streams and drawing from them.
LOLCATS_FUNCTION inline std::uint64_t mix_bits(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/// In [0, 1), a multiple of 2^-53, uniform where the bits are.
LOLCATS_FUNCTION inline double unit_interval(std::uint64_t bits) {
    return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

/// In [-bound, bound), likewise.
LOLCATS_FUNCTION inline double uniform(std::uint64_t bits, double bound) {
    return (2 * unit_interval(bits) - 1) * bound;
}

} // namespace lolcats
