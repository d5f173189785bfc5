#pragma once
/// Small matrix operations on tiles in a team's scratch memory. Attention is written as a sequence of them.
///
/// On the host a team is one thread and the loops are blocked for registers and vectorised; on a device the elements of
/// the result are spread over the team. Every function ends with its result visible to the whole team.
#include "kernels/row.hpp"
#include "kernels/views.hpp"

namespace lolcats::tile {

/// Calls `body(i)` for 0 <= i < count.
template <class Team, class Body>
KOKKOS_INLINE_FUNCTION void for_each(const Team& team, int count, const Body& body) {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, count), body);
    team.team_barrier();
}

template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void fill(const Team& team, int count, Real value, Real* out) {
    for_each(team, count, [=](int i) { out[i] = value; });
}

/// Element (i, j) at data[i * row + j * column]: a matrix or, with the strides exchanged, its transpose.
template <class Real>
struct Operand {
    const Real* data;
    int row;
    int column;
};

template <class Real>
KOKKOS_INLINE_FUNCTION Operand<Real> plain(const Real* data, int row) {
    return {data, row, 1};
}
template <class Real>
KOKKOS_INLINE_FUNCTION Operand<Real> transposed(const Real* data, int row) {
    return {data, 1, row};
}

namespace detail {

#ifdef __AVX512F__
constexpr int vector_bytes = 64;
#else
constexpr int vector_bytes = 32;
#endif

/// Rows x Columns of C stay in registers while k runs.
template <int Rows, int Columns, class Real>
inline void multiply_block(int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c, int c_row, bool add) {
    Real sum[Rows][Columns] = {};
    for (int l = 0; l < k; ++l)
        for (int i = 0; i < Rows; ++i) {
            const Real factor = a.data[i * a.row + l * a.column];
            for (int j = 0; j < Columns; ++j) sum[i][j] += factor * b[l * b_row + j];
        }
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Columns; ++j) {
            const Real old = add ? c[i * c_row + j] : Real(0);
            c[i * c_row + j] = old + alpha * sum[i][j];
        }
}

template <int Columns, class Real>
inline void multiply_panel(int m, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c, int c_row,
                           bool add) {
    int i = 0;
    for (; i + 4 <= m; i += 4)
        multiply_block<4, Columns>(k, alpha, {a.data + i * a.row, a.row, a.column}, b, b_row, c + i * c_row, c_row,
                                   add);
    for (; i < m; ++i)
        multiply_block<1, Columns>(k, alpha, {a.data + i * a.row, a.row, a.column}, b, b_row, c + i * c_row, c_row,
                                   add);
}

template <class Real>
inline void multiply_host(int m, int n, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c,
                          int c_row, bool add) {
    constexpr int width = vector_bytes / static_cast<int>(sizeof(Real));
    int j = 0;
    for (; j + 2 * width <= n; j += 2 * width)
        multiply_panel<2 * width>(m, k, alpha, a, b + j, b_row, c + j, c_row, add);
    for (; j + width / 2 <= n; j += width / 2)
        multiply_panel<width / 2>(m, k, alpha, a, b + j, b_row, c + j, c_row, add);
    for (; j < n; ++j) multiply_panel<1>(m, k, alpha, a, b + j, b_row, c + j, c_row, add);
}

} // namespace detail

/// C[m, n] (+)= alpha A B with A[m, k] and B[k, n], B and C with contiguous rows.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void multiply(const Team& team, int m, int n, int k, Real alpha, Operand<Real> a, const Real* b,
                                     int b_row, Real* c, int c_row, bool add) {
    KOKKOS_IF_ON_HOST((detail::multiply_host(m, n, k, alpha, a, b, b_row, c, c_row, add);))
    KOKKOS_IF_ON_DEVICE((for_each(team, m * n, [=](int index) {
                             const int i = index / n;
                             const int j = index % n;
                             Real sum = 0;
                             for (int l = 0; l < k; ++l) sum += a.data[i * a.row + l * a.column] * b[l * b_row + j];
                             c[i * c_row + j] = (add ? c[i * c_row + j] : Real(0)) + alpha * sum;
                         });))
    (void)team;
}

/// out[n, m] = in[m, n]^T; packs an operand whose rows the inner loops run across.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void transpose(const Team& team, int m, int n, const Real* in, int in_row, Real* out,
                                      int out_row) {
    for_each(team, n, [=](int j) {
        for (int i = 0; i < m; ++i) out[j * out_row + i] = in[i * in_row + j];
    });
}

/// out[n] += column sums of in[m, n].
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void add_column_sums(const Team& team, int m, int n, const Real* in, int in_row, Real* out) {
    for_each(team, n, [=](int j) {
        Real sum = 0;
        for (int i = 0; i < m; ++i) sum += in[i * in_row + j];
        out[j] += sum;
    });
}

} // namespace lolcats::tile
