#include "kernels/attention_arrays.hpp"

namespace lolcats {

template <class Real>
StudentGradients<Real>::StudentGradients(int heads, int weights)
    : q_map("dq_map", heads, weights), k_map("dk_map", heads, weights), q_bias("dq_bias", heads),
      k_bias("dk_bias", heads), window_factors("dwindow_factors", heads) {}

template <class Real>
void StudentGradients<Real>::set_zero() const {
    Kokkos::deep_copy(Execution(), q_map, Real(0));
    Kokkos::deep_copy(Execution(), k_map, Real(0));
    Kokkos::deep_copy(Execution(), q_bias, Real(0));
    Kokkos::deep_copy(Execution(), k_bias, Real(0));
    Kokkos::deep_copy(Execution(), window_factors, Real(0));
}

template struct StudentGradients<float>;
template struct StudentGradients<double>;

} // namespace lolcats
