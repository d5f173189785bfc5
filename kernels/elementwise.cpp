#include "kernels/elementwise.hpp"

#include "lolcats/bfloat16.hpp"

namespace lolcats {

template <class Real>
void add_to(const Vector<double>& sums, const Matrix<Real>& values) {
    const int columns = static_cast<int>(values.extent(1));
    Kokkos::parallel_for(
        "add_to", Kokkos::RangePolicy<Execution>(0, values.extent(0)), KOKKOS_LAMBDA(int row) {
            for (int j = 0; j < columns; ++j)
                sums(static_cast<std::size_t>(row) * columns + j) += static_cast<double>(values(row, j));
        });
}

template <class Real>
void add_over_batch(int batch, int heads, const Matrix<Real>& values, const Vector<double>& sums) {
    const int columns = static_cast<int>(values.extent(1));
    Kokkos::parallel_for(
        "add_over_batch", Kokkos::RangePolicy<Execution>(0, heads), KOKKOS_LAMBDA(int head) {
            for (int b = 0; b < batch; ++b)
                for (int j = 0; j < columns; ++j)
                    sums(static_cast<std::size_t>(head) * columns + j) +=
                        static_cast<double>(values(b * heads + head, j));
        });
}

template <class Real>
void add(const Matrix<Real>& a, const Matrix<Real>& b) {
    const int columns = static_cast<int>(a.extent(1));
    Kokkos::parallel_for(
        "add", Kokkos::RangePolicy<Execution>(0, a.extent(0)), KOKKOS_LAMBDA(int row) {
            for (int j = 0; j < columns; ++j) a(row, j) += b(row, j);
        });
}

template <class Real>
void round_to_bf16(const Matrix<Real>& values) {
    const int columns = static_cast<int>(values.extent(1));
    Kokkos::parallel_for(
        "round_to_bf16", Kokkos::RangePolicy<Execution>(0, values.extent(0)), KOKKOS_LAMBDA(int row) {
            for (int j = 0; j < columns; ++j)
                values(row, j) = static_cast<Real>(to_float(to_bfloat16(static_cast<float>(values(row, j)))));
        });
}

template <class Real>
bool all_finite(const Matrix<Real>& values) {
    const int columns = static_cast<int>(values.extent(1));
    int wrong = 0;
    Kokkos::parallel_reduce(
        "all_finite", Kokkos::RangePolicy<Execution>(0, values.extent(0)),
        KOKKOS_LAMBDA(int row, int& count) {
            for (int j = 0; j < columns; ++j) count += Kokkos::isfinite(values(row, j)) ? 0 : 1;
        },
        wrong);
    return wrong == 0;
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void add_to<Real>(const Vector<double>&, const Matrix<Real>&);                                            \
    template void add_over_batch<Real>(int, int, const Matrix<Real>&, const Vector<double>&);                          \
    template void add<Real>(const Matrix<Real>&, const Matrix<Real>&);                                                 \
    template void round_to_bf16<Real>(const Matrix<Real>&);                                                            \
    template bool all_finite<Real>(const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
