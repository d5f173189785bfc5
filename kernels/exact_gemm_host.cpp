#include "kernels/exact_gemm.hpp"
#include "kernels/tile_host.hpp"

#include <algorithm>
#include <vector>

namespace lolcats {

namespace {

using tile::Operand;
using Simd = tile::host::Simd<double>;

constexpr int rows_in_task = 96;
constexpr int columns_in_task = 64;
constexpr int panel_columns = 2 * Simd::width; ///< as many as are in registers at once
constexpr int rows_in_cache = 16;              ///< of what widen() writes, in the first level

constexpr int round_up(int count, int multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

template <class Real>
Operand<Real> operand(const Factor<Real>& factor) {
    return factor.transpose ? Operand<Real>{factor.data, 1, factor.row} : Operand<Real>{factor.data, factor.row, 1};
}

template <class Real>
Operand<Real> from_element(const Operand<Real>& m, int row, int column) {
    return {m.data + static_cast<std::ptrdiff_t>(row) * m.row + static_cast<std::ptrdiff_t>(column) * m.column, m.row,
            m.column};
}

/// out[rows, pitch] = in[rows, columns], and zero in the columns after them. `in` is read in the order it lies in.
template <class Real>
void widen(const Operand<Real>& in, int rows, int columns, double* out, int pitch) {
    const auto copy = [&](int i, int j) {
        out[static_cast<std::ptrdiff_t>(i) * pitch + j] = static_cast<double>(
            in.data[static_cast<std::ptrdiff_t>(i) * in.row + static_cast<std::ptrdiff_t>(j) * in.column]);
    };
    for (int begin = 0; begin < rows; begin += rows_in_cache) {
        const int end = std::min(rows, begin + rows_in_cache);
        if (in.column == 1) {
            for (int i = begin; i < end; ++i)
                for (int j = 0; j < columns; ++j) copy(i, j);
        } else {
            for (int j = 0; j < columns; ++j)
                for (int i = begin; i < end; ++i) copy(i, j);
        }
        for (int i = begin; i < end; ++i)
            std::fill_n(out + static_cast<std::ptrdiff_t>(i) * pitch + columns, pitch - columns, 0.0);
    }
}

/// sums[rows, columns_in_task] = A B for columns up to that many; those after them are undefined.
template <class Real>
void multiply_wide(const Operand<Real>& a, const Operand<Real>& b, int rows, int columns, int k, double* sums) {
    thread_local std::vector<double> a_wide;
    thread_local std::vector<double> b_wide;
    const int a_pitch = k + Simd::width; // rows a power of two apart would drive each other out of the cache
    a_wide.resize(static_cast<std::size_t>(rows) * a_pitch);
    b_wide.resize(static_cast<std::size_t>(k) * panel_columns);
    widen(a, rows, k, a_wide.data(), a_pitch);
    for (int first = 0; first < columns; first += panel_columns) {
        const int count = std::min(panel_columns, columns - first);
        const int pitch = round_up(count, Simd::width);
        widen(from_element(b, 0, first), k, count, b_wide.data(), pitch);
        tile::host::multiply_columns<double>(rows, pitch, k, 1.0, {a_wide.data(), a_pitch, 1}, b_wide.data(), pitch,
                                             sums + first, columns_in_task, false);
    }
}

} // namespace

/// A task computes rows_in_task x columns_in_task elements. A thread keeps 8 (rows_in_task + panel_columns) k bytes.
template <class Real>
void exact_multiply(const ProductShape& shape, Real alpha, const Factor<Real>& a, const Factor<Real>& b, Real beta,
                    Real* c, int c_row) {
    const int m = shape.m;
    const int n = shape.n;
    const int k = shape.k;
    const auto a_operand = operand(a);
    const auto b_operand = operand(b);
    const int across = (n + columns_in_task - 1) / columns_in_task;
    const int down = (m + rows_in_task - 1) / rows_in_task;
    Kokkos::parallel_for(
        "exact_multiply", Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, across * down), [=](int task) {
            const int row = task / across * rows_in_task;
            const int column = task % across * columns_in_task;
            const int rows = std::min(rows_in_task, m - row);
            const int columns = std::min(columns_in_task, n - column);
            alignas(tile::host::vector_bytes) double sums[rows_in_task * columns_in_task];
            multiply_wide(from_element(a_operand, row, 0), from_element(b_operand, 0, column), rows, columns, k, sums);
            for (int i = 0; i < rows; ++i)
                for (int j = 0; j < columns; ++j) {
                    Real& out = c[static_cast<std::size_t>(row + i) * c_row + column + j];
                    const double old = beta == 0 ? 0.0 : static_cast<double>(beta) * static_cast<double>(out);
                    out = static_cast<Real>(static_cast<double>(alpha) * sums[i * columns_in_task + j] + old);
                }
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void exact_multiply<Real>(const ProductShape&, Real, const Factor<Real>&, const Factor<Real>&, Real,      \
                                       Real*, int);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
