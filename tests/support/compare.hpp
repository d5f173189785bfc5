#pragma once
/// The one comparer of numerical tests.
///
/// Errors are measured against the root mean square of the whole expected array, so that elements which happen to be
/// near zero do not ask for more digits than the arithmetic has. Every condition is written so that a NaN fails.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace lolcats::test {

struct Difference {
    double relative_rms = 0; ///< rms(actual - expected) / rms(expected)
    double worst = 0;        ///< max |actual - expected| / rms(expected)
    std::size_t worst_index = 0;
};

/// How much farther than the tolerance of the root mean square one element may be off.
inline constexpr double worst_factor = 10;

/// Arrays of equal length. Where all expected values are zero, errors are absolute.
inline Difference difference(const std::vector<double>& actual, const std::vector<double>& expected) {
    double squares = 0;
    for (const double e : expected) squares += e * e;
    const double rms = std::sqrt(squares / static_cast<double>(expected.size()));
    const double unit = rms > 0 ? rms : 1;
    Difference result;
    double errors = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double error = std::abs(actual[i] - expected[i]) / unit;
        errors += error * error;
        if (error > result.worst) {
            result.worst = error;
            result.worst_index = i;
        }
    }
    result.relative_rms = std::sqrt(errors / static_cast<double>(expected.size()));
    return result;
}

/// Success if the relative RMS error is within `tolerance` and every element within `worst_factor` times that. Arrays
/// of different lengths, empty ones and any NaN or infinity on either side fail.
inline testing::AssertionResult close(const std::vector<double>& actual, const std::vector<double>& expected,
                                      double tolerance) {
    if (actual.size() != expected.size())
        return testing::AssertionFailure() << actual.size() << " values, expected " << expected.size();
    if (expected.empty()) return testing::AssertionFailure() << "nothing to compare";
    for (std::size_t i = 0; i < expected.size(); ++i)
        if (!std::isfinite(actual[i]) || !std::isfinite(expected[i]))
            return testing::AssertionFailure()
                   << "element " << i << " is " << actual[i] << ", expected " << expected[i] << ": not finite";
    const Difference d = difference(actual, expected);
    const bool good = d.relative_rms <= tolerance && d.worst <= worst_factor * tolerance;
    return (good ? testing::AssertionSuccess() : testing::AssertionFailure())
           << "relative RMS error " << d.relative_rms << ", worst element " << d.worst_index << " of "
           << expected.size() << " is " << actual[d.worst_index] << ", expected " << expected[d.worst_index]
           << ", off by " << d.worst << " RMS; tolerance " << tolerance;
}

inline testing::AssertionResult close(double actual, double expected, double tolerance) {
    return close(std::vector<double>{actual}, std::vector<double>{expected}, tolerance);
}

} // namespace lolcats::test
