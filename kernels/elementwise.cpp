#include "kernels/elementwise.hpp"

#include "kernels/row_team.hpp"
#include "lolcats/bfloat16.hpp"

namespace lolcats {

template <class Real>
void add_to(const Vector<double>& sums, const Matrix<Real>& values) {
    const int columns = static_cast<int>(values.extent(1));
    for_each_row(
        "add_to", values.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            team.for_each(columns, [&](int j) {
                sums(static_cast<std::size_t>(row) * columns + j) += static_cast<double>(values(row, j));
            });
        });
}

template <class Real>
void add_over_batch(int batch, int heads, const Matrix<Real>& values, const Vector<double>& sums) {
    const int columns = static_cast<int>(values.extent(1));
    for_each_row(
        "add_over_batch", heads, KOKKOS_LAMBDA(const RowTeam& team, int head) {
            for (int b = 0; b < batch; ++b)
                team.for_each(columns, [&](int j) {
                    sums(static_cast<std::size_t>(head) * columns + j) +=
                        static_cast<double>(values(b * heads + head, j));
                });
        });
}

template <class Real>
void add(const Matrix<Real>& a, const Matrix<Real>& b) {
    const int columns = static_cast<int>(a.extent(1));
    for_each_row(
        "add", a.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            team.for_each(columns, [&](int j) { a(row, j) += b(row, j); });
        });
}

template <class Real>
void add_to_rows(const Vector<Real>& values, const Matrix<Real>& a) {
    const int columns = static_cast<int>(a.extent(1));
    for_each_row(
        "add_to_rows", a.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            team.for_each(columns, [&](int j) { a(row, j) += values(j); });
        });
}

template <class Real>
void round_to_bf16(const Matrix<Real>& values) {
    const int columns = static_cast<int>(values.extent(1));
    for_each_row(
        "round_to_bf16", values.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            team.for_each(columns, [&](int j) {
                values(row, j) = static_cast<Real>(to_float(to_bfloat16(static_cast<float>(values(row, j)))));
            });
        });
}

template <class Real>
bool all_finite(const Matrix<Real>& values) {
    const Real* data = values.data();
    std::size_t wrong = 0;
    Kokkos::parallel_reduce(
        "all_finite", Kokkos::RangePolicy<Execution>(0, values.size()),
        KOKKOS_LAMBDA(std::size_t i, std::size_t & count) { count += Kokkos::isfinite(data[i]) ? 0 : 1; }, wrong);
    return wrong == 0;
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void add_to<Real>(const Vector<double>&, const Matrix<Real>&);                                            \
    template void add_over_batch<Real>(int, int, const Matrix<Real>&, const Vector<double>&);                          \
    template void add<Real>(const Matrix<Real>&, const Matrix<Real>&);                                                 \
    template void add_to_rows<Real>(const Vector<Real>&, const Matrix<Real>&);                                         \
    template void round_to_bf16<Real>(const Matrix<Real>&);                                                            \
    template bool all_finite<Real>(const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
