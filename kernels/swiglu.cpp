#include "kernels/swiglu.hpp"

#include "kernels/exponential.hpp"
#include "kernels/rounding.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

template <class Real, class Out>
void swiglu(const Matrix<Real>& gate, const Matrix<Real>& up, const Matrix<Out>& out) {
    const int width = static_cast<int>(gate.extent(1));
    for_each_row(
        "swiglu", gate.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Real* g = &gate(row, 0);
            const Real* u = &up(row, 0);
            Out* y = &out(row, 0);
            struct Pair {
                Real gate, up;
            };
            team.transform(
                width,
                [=](int j) {
                    return Pair{g[j], u[j]};
                },
                [=](int j, Pair x) { y[j] = rounded_to<Out>(x.up * (x.gate / (Real(1) + exponential(-x.gate)))); });
        });
}

template <class Real>
void swiglu_backward(const Matrix<Real>& dy, const Matrix<Real>& gate, const Matrix<Real>& up) {
    const int width = static_cast<int>(gate.extent(1));
    for_each_row(
        "swiglu_backward", gate.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Real* out = &dy(row, 0);
            Real* g = &gate(row, 0);
            Real* u = &up(row, 0);
            team.for_each(width, [=](int j) {
                const Real sigmoid = Real(1) / (Real(1) + exponential(-g[j]));
                const Real silu = g[j] * sigmoid;
                g[j] = out[j] * u[j] * (sigmoid + silu * (Real(1) - sigmoid));
                u[j] = out[j] * silu;
            });
        });
}

template void swiglu(const Matrix<float>&, const Matrix<float>&, const Matrix<float>&);
template void swiglu(const Matrix<float>&, const Matrix<float>&, const Matrix<BFloat16>&);
template void swiglu(const Matrix<double>&, const Matrix<double>&, const Matrix<double>&);
template void swiglu_backward(const Matrix<float>&, const Matrix<float>&, const Matrix<float>&);
template void swiglu_backward(const Matrix<double>&, const Matrix<double>&, const Matrix<double>&);

} // namespace lolcats
