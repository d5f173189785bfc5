#include "kernels/dropout.hpp"

namespace lolcats {

template <class Real>
void dropout(const Matrix<Real>& x, double probability, std::uint64_t stream, const Matrix<Real>& out) {
    const int width = static_cast<int>(x.extent(1));
    const auto threshold = static_cast<std::uint64_t>(probability * 4294967296.0);
    const Real scale = static_cast<Real>(1 / (1 - probability));
    Kokkos::parallel_for(
        "dropout", Kokkos::RangePolicy<Execution>(0, x.extent(0)), KOKKOS_LAMBDA(int row) {
            const std::uint64_t row_stream = mix_bits(stream ^ mix_bits(static_cast<std::uint64_t>(row)));
            for (int j = 0; j < width; ++j) {
                const bool kept = (mix_bits(row_stream + static_cast<std::uint64_t>(j)) >> 32) >= threshold;
                out(row, j) = kept ? x(row, j) * scale : Real(0);
            }
        });
}

template void dropout<float>(const Matrix<float>&, double, std::uint64_t, const Matrix<float>&);
template void dropout<double>(const Matrix<double>&, double, std::uint64_t, const Matrix<double>&);

} // namespace lolcats
