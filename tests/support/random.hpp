#pragma once
/// Random numbers of tests.
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

} // namespace lolcats::test
