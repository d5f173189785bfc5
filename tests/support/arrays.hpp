#pragma once
/// Between the arrays of the kernels and plain vectors of doubles, in which all references are computed.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"
#include "tests/support/random.hpp"

#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

namespace lolcats::test {

/// Copies values, in order, into a new dense array of the given extents.
template <class View, class... Extents>
View filled(const std::vector<double>& values, Extents... extents) {
    View view("test", extents...);
    const auto host = Kokkos::create_mirror_view(view);
    for (std::size_t i = 0; i < host.size(); ++i)
        host.data()[i] = static_cast<typename View::non_const_value_type>(values.at(i));
    Kokkos::deep_copy(view, host);
    return view;
}

template <class Real>
Matrix<Real> matrix(std::size_t rows, std::size_t columns, const std::vector<double>& values) {
    return filled<Matrix<Real>>(values, rows, columns);
}

template <class Real>
Vector<Real> vector(const std::vector<double>& values) {
    return filled<Vector<Real>>(values, values.size());
}

/// An output array full of NaN: an element that the kernel forgets to write fails the comparison.
template <class Real>
Matrix<Real> poisoned(std::size_t rows, std::size_t columns) {
    const Matrix<Real> result(uninitialized("test_output"), rows, columns);
    Kokkos::deep_copy(result, std::numeric_limits<Real>::quiet_NaN());
    return result;
}

template <class T>
double to_double(T value) {
    if constexpr (std::is_same_v<T, BFloat16>)
        return to_float(value);
    else
        return static_cast<double>(value);
}

/// All elements of a dense array, in order.
template <class View>
std::vector<double> values(const View& view) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, view);
    std::vector<double> result(host.size());
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = to_double(host.data()[i]);
    return result;
}

} // namespace lolcats::test
