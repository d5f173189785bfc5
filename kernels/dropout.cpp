#include "kernels/dropout.hpp"

#include "kernels/row_team.hpp"

namespace lolcats {

template <class Real>
void dropout(const Matrix<Real>& x, double probability, std::uint64_t stream, const Matrix<Real>& out) {
    const int width = static_cast<int>(x.extent(1));
    const auto threshold = static_cast<std::uint64_t>(probability * 4294967296.0);
    const Real scale = static_cast<Real>(1 / (1 - probability));
    for_each_row(
        "dropout", x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const std::uint64_t row_stream = mix_bits(stream ^ mix_bits(static_cast<std::uint64_t>(row)));
            team.for_each(width, [&](int j) {
                const bool kept = (mix_bits(row_stream + static_cast<std::uint64_t>(j)) >> 32) >= threshold;
                out(row, j) = kept ? x(row, j) * scale : Real(0);
            });
        });
}

template void dropout<float>(const Matrix<float>&, double, std::uint64_t, const Matrix<float>&);
template void dropout<double>(const Matrix<double>&, double, std::uint64_t, const Matrix<double>&);

} // namespace lolcats
