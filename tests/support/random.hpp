#pragma once
/// Numbers of tests: random ones, and what a kernel that rounds sees of them.
#include "lolcats/bfloat16.hpp"

#include <cstddef>
#include <random>
#include <vector>

namespace lolcats::test {

/// Normal deviates times `scale`, rounded to float so that kernels in either precision and the reference see the same
/// numbers.
inline std::vector<double> random_values(std::size_t count, unsigned seed, double scale = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0, scale);
    std::vector<double> values(count);
    for (double& x : values) x = static_cast<double>(static_cast<float>(normal(generator)));
    return values;
}

/// The numbers that a kernel sees which rounds its inputs to bf16.
inline std::vector<double> rounded_to_bf16(std::vector<double> values) {
    for (double& x : values) x = to_float(to_bfloat16(static_cast<float>(x)));
    return values;
}

} // namespace lolcats::test
