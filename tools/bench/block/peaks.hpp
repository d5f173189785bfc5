#pragma once
/// What the machine can do at most, measured: matrix products by the library alone, and copies.
#include "kernels/gemm.hpp"
#include "tools/bench/block/settings.hpp"

#include <string>
#include <vector>

namespace lolcats::bench {

struct ProductRate {
    std::string name;
    int m, n, k;
    double flops = 0;       ///< FLOP/s of the fastest algorithm
    double first_flops = 0; ///< of the library's first choice, which is what the program takes
};

struct Peaks {
    std::vector<ProductRate> products; ///< the block's own shapes, then a square one
    double flops = 0;                  ///< the best of them
    double copy = 0;                   ///< bytes/s, read and written, of a large copy
};

/// Products [n, inputs] x [inputs, outputs] of the block's weights for one micro-batch and of the square size, in the
/// arithmetic the block computes in (not exact).
Peaks measure_peaks(const Settings& settings, Arithmetic arithmetic);

} // namespace lolcats::bench
