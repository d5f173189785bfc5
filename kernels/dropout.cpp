#include "kernels/dropout.hpp"

#include "kernels/random.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

namespace {

/// Calls `store(out(i, j), y)` with what dropout makes of x(i, j).
template <class Real, class Store>
void for_each_dropped(const char* label, const Matrix<Real>& x, double probability, std::uint64_t stream,
                      const Matrix<Real>& out, const Store& store) {
    const int width = static_cast<int>(x.extent(1));
    const auto threshold = static_cast<std::uint64_t>(probability * 4294967296.0);
    const Real scale = static_cast<Real>(1 / (1 - probability));
    for_each_row(
        label, x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const std::uint64_t row_stream = mix_bits(stream ^ mix_bits(static_cast<std::uint64_t>(row)));
            team.for_each(width, [&](int j) {
                const bool kept = (mix_bits(row_stream + static_cast<std::uint64_t>(j)) >> 32) >= threshold;
                store(out(row, j), kept ? x(row, j) * scale : Real(0));
            });
        });
}

template <class Real>
struct Assign {
    KOKKOS_INLINE_FUNCTION void operator()(Real& to, Real value) const { to = value; }
};
template <class Real>
struct Add {
    KOKKOS_INLINE_FUNCTION void operator()(Real& to, Real value) const { to += value; }
};

} // namespace

template <class Real>
void dropout(const Matrix<Real>& x, double probability, std::uint64_t stream, const Matrix<Real>& out) {
    for_each_dropped("dropout", x, probability, stream, out, Assign<Real>{});
}

template <class Real>
void add_dropout(const Matrix<Real>& x, double probability, std::uint64_t stream, const Matrix<Real>& out) {
    for_each_dropped("add_dropout", x, probability, stream, out, Add<Real>{});
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template void dropout<Real>(const Matrix<Real>&, double, std::uint64_t, const Matrix<Real>&);                      \
    template void add_dropout<Real>(const Matrix<Real>&, double, std::uint64_t, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
