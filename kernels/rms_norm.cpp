#include "kernels/rms_norm.hpp"

#include "kernels/rounding.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

template <class Real, class Out>
void rms_norm(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Out>& y) {
    const int width = static_cast<int>(x.extent(1));
    for_each_row(
        "rms_norm", x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Real* in = &x(row, 0);
            const Real mean_square = team.dot(width, in, in) / static_cast<Real>(width);
            const Real scale = Real(1) / Kokkos::sqrt(mean_square + static_cast<Real>(eps));
            Out* const out = &y(row, 0);
            const Real* const w = weight.data();
            team.transform(
                width, [=](int j) { return in[j] * scale * w[j]; },
                [=](int j, Real value) { out[j] = rounded_to<Out>(value); });
        });
}

template <class Real>
void rms_norm_backward(const Matrix<Real>& x, const Vector<Real>& weight, double eps, const Matrix<Real>& dy,
                       const Matrix<Real>& added, const Matrix<Real>& dx) {
    const int width = static_cast<int>(x.extent(1));
    const bool adds = added.extent(0) > 0;
    for_each_row(
        "rms_norm_backward", x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Real* in = &x(row, 0);
            const Real mean_square = team.dot(width, in, in) / static_cast<Real>(width);
            const Real scale = Real(1) / Kokkos::sqrt(mean_square + static_cast<Real>(eps));
            Real along = team.template sum<Real>(width, [&](int j) { return dy(row, j) * weight(j) * in[j]; });
            along *= scale * scale / static_cast<Real>(width);
            team.for_each(width, [&](int j) {
                dx(row, j) = (adds ? added(row, j) : Real(0)) + scale * (dy(row, j) * weight(j) - in[j] * along);
            });
        });
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void rms_norm(const Matrix<Real>&, const Vector<Real>&, double, const Matrix<Real>&);                     \
    template void rms_norm_backward(const Matrix<Real>&, const Vector<Real>&, double, const Matrix<Real>&,             \
                                    const Matrix<Real>&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE
template void rms_norm(const Matrix<float>&, const Vector<float>&, double, const Matrix<BFloat16>&);

} // namespace lolcats
