#include "kernels/exact_gemm.hpp"

namespace lolcats {

namespace {

constexpr int tile_size = 16;
constexpr int pitch = tile_size + 1; ///< elements between a tile's rows, odd so that columns lie in different banks

/// One operand with its transposition resolved; zero beyond its edges.
template <class Real>
struct Source {
    const Real* data;
    std::size_t row;
    std::size_t column;
    int rows;
    int columns;

    KOKKOS_INLINE_FUNCTION double at(int i, int j) const {
        return i < rows && j < columns ? static_cast<double>(data[i * row + j * column]) : 0.0;
    }
};

template <class Real>
Source<Real> source(const Factor<Real>& factor, int rows, int columns) {
    const auto row = static_cast<std::size_t>(factor.row);
    return factor.transpose ? Source<Real>{factor.data, 1, row, rows, columns}
                            : Source<Real>{factor.data, row, 1, rows, columns};
}

} // namespace

/// A team of 256 threads computes 16 x 16 elements, a thread each, from tiles of both operands in 4352 bytes of shared
/// memory. A product of two floats is exact in double, so that sums are those of the host to the last bit.
template <class Real>
void exact_multiply(const ProductShape& shape, Real alpha, const Factor<Real>& a, const Factor<Real>& b, Real beta,
                    Real* c, int c_row) {
    const int m = shape.m;
    const int n = shape.n;
    const int k = shape.k;
    const auto a_source = source(a, m, k);
    const auto b_source = source(b, k, n);
    const int across = (n + tile_size - 1) / tile_size;
    const int down = (m + tile_size - 1) / tile_size;
    const auto policy = Kokkos::TeamPolicy<Execution>(across * down, tile_size * tile_size)
                            .set_scratch_size(0, Kokkos::PerTeam(2 * tile_size * pitch * sizeof(double)));
    Kokkos::parallel_for(
        "exact_multiply", policy, KOKKOS_LAMBDA(const Team& team) {
            auto* a_tile = static_cast<double*>(
                team.team_scratch(0).get_shmem(2 * tile_size * pitch * static_cast<int>(sizeof(double))));
            double* b_tile = a_tile + tile_size * pitch;
            const int i = team.team_rank() / tile_size;
            const int j = team.team_rank() % tile_size;
            const int row = team.league_rank() / across * tile_size + i;
            const int column = team.league_rank() % across * tile_size + j;
            double sum = 0;
            for (int first = 0; first < k; first += tile_size) {
                a_tile[i * pitch + j] = a_source.at(row, first + j);
                b_tile[i * pitch + j] = b_source.at(first + i, column);
                team.team_barrier();
                for (int l = 0; l < tile_size; ++l) sum += a_tile[i * pitch + l] * b_tile[l * pitch + j];
                team.team_barrier();
            }
            if (row >= m || column >= n) return;
            Real& out = c[static_cast<std::size_t>(row) * c_row + column];
            const double old = beta == 0 ? 0.0 : static_cast<double>(beta) * static_cast<double>(out);
            out = static_cast<Real>(static_cast<double>(alpha) * sum + old);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void exact_multiply<Real>(const ProductShape&, Real, const Factor<Real>&, const Factor<Real>&, Real,      \
                                       Real*, int);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
