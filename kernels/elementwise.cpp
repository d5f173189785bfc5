#include "kernels/elementwise.hpp"

#include "kernels/rounding.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

namespace {

/// sums[i] += values[b n + i] for b = 0 .. batch - 1, n being the size of sums. Teams have pieces of the same size, as
/// rows may be few or short.
template <class Real>
void add_in_pieces(const char* label, int batch, std::size_t size, const Real* values, double* sums) {
    constexpr std::size_t piece = 1024;
    for_each_row(
        label, (size + piece - 1) / piece, KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const std::size_t first = row * piece;
            const int count = static_cast<int>(size - first < piece ? size - first : piece);
            double* const out = sums + first;
            for (int b = 0; b < batch; ++b) {
                const Real* const in = values + b * size + first;
                team.for_each(count, [=](int j) { out[j] += static_cast<double>(in[j]); });
            }
        });
}

} // namespace

template <class Real>
void add_to(const Vector<double>& sums, const Matrix<Real>& values) {
    add_in_pieces("add_to", 1, values.size(), values.data(), sums.data());
}

template <class Real>
void add_over_batch(int batch, int heads, const Matrix<Real>& values, const Vector<double>& sums) {
    add_in_pieces("add_over_batch", batch, static_cast<std::size_t>(heads) * values.extent(1), values.data(),
                  sums.data());
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
bool start_with(const Matrix<Real>& added, const Matrix<Real>& c) {
    if (added.extent(0) == 0) return false;
    if (added.data() != c.data()) Kokkos::deep_copy(Execution(), c, added);
    return true;
}

template <class Real>
void round_to_bf16(const Matrix<Real>& values) {
    const int columns = static_cast<int>(values.extent(1));
    for_each_row(
        "round_to_bf16", values.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            Real* const x = &values(row, 0);
            team.transform(
                columns, [=](int j) { return x[j]; },
                [=](int j, Real value) { x[j] = static_cast<Real>(to_float(to_bfloat16(static_cast<float>(value)))); });
        });
}

template <class Real>
void narrow(const Real* in, std::size_t count, BFloat16* out) {
    Kokkos::parallel_for(
        "round_to_bf16", Elements(0, static_cast<std::int64_t>(count)),
        KOKKOS_LAMBDA(std::int64_t i) { out[i] = rounded_to<BFloat16>(in[i]); });
}

template <class T, class Real>
void widen(const T* in, std::size_t count, Real* out) {
    Kokkos::parallel_for(
        "widen", Elements(0, static_cast<std::int64_t>(count)),
        KOKKOS_LAMBDA(std::int64_t i) { out[i] = static_cast<Real>(widened(in[i])); });
}

template <class Real>
bool all_finite(const Matrix<Real>& values) {
    const Real* data = values.data();
    std::size_t wrong = 0;
    Kokkos::parallel_reduce(
        "all_finite", Elements(0, static_cast<std::int64_t>(values.size())),
        KOKKOS_LAMBDA(std::int64_t i, std::size_t & count) { count += Kokkos::isfinite(data[i]) ? 0 : 1; }, wrong);
    return wrong == 0;
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void add_to<Real>(const Vector<double>&, const Matrix<Real>&);                                            \
    template void add_over_batch<Real>(int, int, const Matrix<Real>&, const Vector<double>&);                          \
    template void add<Real>(const Matrix<Real>&, const Matrix<Real>&);                                                 \
    template void add_to_rows<Real>(const Vector<Real>&, const Matrix<Real>&);                                         \
    template bool start_with<Real>(const Matrix<Real>&, const Matrix<Real>&);                                          \
    template void round_to_bf16<Real>(const Matrix<Real>&);                                                            \
    template void narrow<Real>(const Real*, std::size_t, BFloat16*);                                                   \
    template void widen<float, Real>(const float*, std::size_t, Real*);                                                \
    template void widen<BFloat16, Real>(const BFloat16*, std::size_t, Real*);                                          \
    template bool all_finite<Real>(const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
