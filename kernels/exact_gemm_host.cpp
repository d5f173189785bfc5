#include "kernels/exact_gemm.hpp"

#include <algorithm>
#include <vector>

namespace lolcats {

namespace {

constexpr int rows_in_registers = 4;
constexpr int panel_columns = 16;
constexpr int rows_in_task = 64;

/// One operand with its transposition resolved.
template <class Real>
struct Source {
    const Real* data;
    std::size_t row;
    std::size_t column;
    double at(int i, int j) const { return static_cast<double>(data[i * row + j * column]); }
};

template <class Real>
Source<Real> source(bool transpose, const Real* data, int stride) {
    const auto s = static_cast<std::size_t>(stride);
    return transpose ? Source<Real>{data, 1, s} : Source<Real>{data, s, 1};
}

/// sums[rows][columns] over k of packed a[k][rows] and b[k][columns].
void multiply_packed(int k, const double* a, const double* b, double (&sums)[rows_in_registers][panel_columns]) {
    for (auto& row : sums) std::fill(std::begin(row), std::end(row), 0.0);
    for (int l = 0; l < k; ++l)
        for (int i = 0; i < rows_in_registers; ++i) {
            const double factor = a[l * rows_in_registers + i];
            for (int j = 0; j < panel_columns; ++j) sums[i][j] += factor * b[l * panel_columns + j];
        }
}

/// Packs `count` of `width` lanes starting at `first`; lanes beyond the matrix are zero.
template <class At>
void pack(int k, int width, int count, const At& at, std::vector<double>& out) {
    out.resize(static_cast<std::size_t>(k) * width);
    for (int l = 0; l < k; ++l)
        for (int i = 0; i < width; ++i) out[static_cast<std::size_t>(l) * width + i] = i < count ? at(l, i) : 0.0;
}

} // namespace

template <class Real>
void exact_multiply(bool transpose_a, bool transpose_b, int m, int n, int k, Real alpha, const Real* a, int lda,
                    const Real* b, int ldb, Real beta, Real* c, int ldc) {
    const auto a_source = source(transpose_a, a, lda);
    const auto b_source = source(transpose_b, b, ldb);
    const int panels = (n + panel_columns - 1) / panel_columns;
    const int row_tasks = (m + rows_in_task - 1) / rows_in_task;
    Kokkos::parallel_for(
        "exact_multiply", Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, panels * row_tasks), [=](int task) {
            thread_local std::vector<double> a_packed;
            thread_local std::vector<double> b_packed;
            const int column = task % panels * panel_columns;
            const int columns = std::min(panel_columns, n - column);
            const int end = std::min(m, (task / panels + 1) * rows_in_task);
            pack(
                k, panel_columns, columns, [&](int l, int j) { return b_source.at(l, column + j); }, b_packed);
            for (int row = task / panels * rows_in_task; row < end; row += rows_in_registers) {
                const int rows = std::min(rows_in_registers, end - row);
                pack(
                    k, rows_in_registers, rows, [&](int l, int i) { return a_source.at(row + i, l); }, a_packed);
                double sums[rows_in_registers][panel_columns];
                multiply_packed(k, a_packed.data(), b_packed.data(), sums);
                for (int i = 0; i < rows; ++i)
                    for (int j = 0; j < columns; ++j) {
                        Real& out = c[static_cast<std::size_t>(row + i) * ldc + column + j];
                        const double old = beta == 0 ? 0.0 : static_cast<double>(beta) * static_cast<double>(out);
                        out = static_cast<Real>(static_cast<double>(alpha) * sums[i][j] + old);
                    }
            }
        });
}

template void exact_multiply<float>(bool, bool, int, int, int, float, const float*, int, const float*, int, float,
                                    float*, int);
template void exact_multiply<double>(bool, bool, int, int, int, double, const double*, int, const double*, int, double,
                                     double*, int);

} // namespace lolcats
