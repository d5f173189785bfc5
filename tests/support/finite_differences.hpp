#pragma once
/// Numerical gradients of a reference in double precision.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace lolcats::test {

/// At most `most` indices below `count`, spread evenly over all of them.
inline std::vector<std::size_t> spread_indices(std::size_t count, std::size_t most) {
    const std::size_t wanted = std::min(count, most);
    std::vector<std::size_t> indices(wanted);
    for (std::size_t i = 0; i < wanted; ++i) indices[i] = i * count / wanted;
    return indices;
}

/// (above - below) / 2h, or 0 where the two differ by no more than the rounding of the sums behind them: the quotient
/// would be noise, of another value on every kind of processor.
inline double difference_quotient(double above, double below, double h) {
    const double rounding =
        64 * std::numeric_limits<double>::epsilon() * std::max({1.0, std::abs(above), std::abs(below)});
    return std::abs(above - below) <= rounding ? 0 : (above - below) / (2 * h);
}

/// (loss(x + h) - loss(x - h)) / 2h for each of the given elements of x, which `loss` reads.
template <class Loss>
std::vector<double> central_differences(const Loss& loss, std::vector<double>& x,
                                        const std::vector<std::size_t>& indices, double h = 1e-5) {
    std::vector<double> gradient;
    for (const std::size_t i : indices) {
        const double old = x[i];
        x[i] = old + h;
        const double above = loss();
        x[i] = old - h;
        const double below = loss();
        x[i] = old;
        gradient.push_back(difference_quotient(above, below, h));
    }
    return gradient;
}

template <class Loss>
std::vector<double> central_differences(const Loss& loss, std::vector<double>& x, double h = 1e-5) {
    return central_differences(loss, x, spread_indices(x.size(), x.size()), h);
}

inline std::vector<double> picked(const std::vector<double>& values, const std::vector<std::size_t>& indices) {
    std::vector<double> result;
    for (const std::size_t i : indices) result.push_back(values.at(i));
    return result;
}

inline double inner_product(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

} // namespace lolcats::test
