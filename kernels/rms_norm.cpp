#include "kernels/rms_norm.hpp"

#include "kernels/tile.hpp"

namespace lolcats {

template <class Real>
void rms_norm(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Real>& y) {
    const int width = static_cast<int>(x.extent(1));
    Kokkos::parallel_for(
        "rms_norm", Kokkos::RangePolicy<Execution>(0, x.extent(0)), KOKKOS_LAMBDA(int row) {
            const Real* in = &x(row, 0);
            const Real mean_square = tile::dot(width, in, in) / static_cast<Real>(width);
            const Real scale = Real(1) / Kokkos::sqrt(mean_square + static_cast<Real>(eps));
            for (int j = 0; j < width; ++j) y(row, j) = in[j] * scale * weight(j);
        });
}

template <class Real>
void rms_norm_backward(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Real>& dy,
                       const Matrix<Real>& dx) {
    const int width = static_cast<int>(x.extent(1));
    Kokkos::parallel_for(
        "rms_norm_backward", Kokkos::RangePolicy<Execution>(0, x.extent(0)), KOKKOS_LAMBDA(int row) {
            const Real* in = &x(row, 0);
            const Real mean_square = tile::dot(width, in, in) / static_cast<Real>(width);
            const Real scale = Real(1) / Kokkos::sqrt(mean_square + static_cast<Real>(eps));
            Real along = 0;
            for (int j = 0; j < width; ++j) along += dy(row, j) * weight(j) * in[j];
            along *= scale * scale / static_cast<Real>(width);
            for (int j = 0; j < width; ++j) dx(row, j) += scale * (dy(row, j) * weight(j) - in[j] * along);
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void rms_norm<Real>(const Matrix<Real>&, const Vector<Real>&, double, const Matrix<Real>&);               \
    template void rms_norm_backward<Real>(const Matrix<Real>&, const Vector<Real>&, double, const Matrix<Real>&,       \
                                          const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
