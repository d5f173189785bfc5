#pragma once
/// Small matrix operations on tiles in a team's scratch memory. Attention is written as a sequence of them.
///
/// On the host a team is one thread and the loops are blocked for registers and vectorised; on a device the elements of
/// the result are spread over the team. Every function ends with its result visible to the whole team.
#include "kernels/row.hpp"
#include "kernels/tile_host.hpp"
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

template <class Real>
KOKKOS_INLINE_FUNCTION Operand<Real> plain(const Real* data, int row) {
    return {data, row, 1};
}
template <class Real>
KOKKOS_INLINE_FUNCTION Operand<Real> transposed(const Real* data, int row) {
    return {data, 1, row};
}

#ifdef KOKKOS_ENABLE_CUDA
namespace device {

/// Not inlined: attention's kernels have dozens of products, and take minutes to compile if each is a copy.
template <class Team, class Real>
__device__ __noinline__ void multiply(const Team& team, int m, int n, int k, Real alpha, Operand<Real> a, const Real* b,
                                      int b_row, Real* c, int c_row, bool add) {
    for_each(team, m * n, [=](int index) {
        const int i = index / n;
        const int j = index % n;
        Real sum = 0;
        for (int l = 0; l < k; ++l) sum += a.data[i * a.row + l * a.column] * b[l * b_row + j];
        c[i * c_row + j] = (add ? c[i * c_row + j] : Real(0)) + alpha * sum;
    });
}

} // namespace device
#endif

/// C[m, n] (+)= alpha A B with A[m, k] and B[k, n], B and C with contiguous rows.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void multiply(const Team& team, int m, int n, int k, Real alpha, Operand<Real> a, const Real* b,
                                     int b_row, Real* c, int c_row, bool add) {
    KOKKOS_IF_ON_HOST((host::multiply(m, n, k, alpha, a, b, b_row, c, c_row, add);))
    KOKKOS_IF_ON_DEVICE((device::multiply(team, m, n, k, alpha, a, b, b_row, c, c_row, add);))
    (void)team;
}

/// out[n, m] = in[m, n]^T; packs an operand whose rows the inner loops run across.
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void transpose(const Team& team, int m, int n, const Real* in, int in_row, Real* out,
                                      int out_row) {
    KOKKOS_IF_ON_HOST((host::transpose(m, n, in, in_row, out, out_row);))
    KOKKOS_IF_ON_DEVICE((for_each(team, n, [=](int j) {
                             for (int i = 0; i < m; ++i) out[j * out_row + i] = in[i * in_row + j];
                         });))
    (void)team;
}

/// out[n] += column sums of in[m, n].
template <class Team, class Real>
KOKKOS_INLINE_FUNCTION void add_column_sums(const Team& team, int m, int n, const Real* in, int in_row, Real* out) {
    KOKKOS_IF_ON_HOST((host::add_column_sums(m, n, in, in_row, out);))
    KOKKOS_IF_ON_DEVICE((for_each(team, n, [=](int j) {
                             Real sum = 0;
                             for (int i = 0; i < m; ++i) sum += in[i * in_row + j];
                             out[j] += sum;
                         });))
    (void)team;
}

} // namespace lolcats::tile
