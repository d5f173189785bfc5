#include "kernels/cross_entropy.hpp"

#include "kernels/exponential.hpp"

namespace lolcats {

template <class Real>
CrossEntropySum cross_entropy(const Matrix<Real>& logits, const Vector<std::int32_t>& labels, Real scale,
                              const Vector<std::int32_t>& predicted) {
    const int width = static_cast<int>(logits.extent(1));
    Vector<double> losses(uninitialized("row_losses"), logits.extent(0));
    Kokkos::parallel_for(
        "cross_entropy", Kokkos::RangePolicy<Execution>(0, logits.extent(0)), KOKKOS_LAMBDA(int row) {
            Real* z = &logits(row, 0);
            int best = 0;
            for (int j = 1; j < width; ++j) best = z[j] > z[best] ? j : best;
            predicted(row) = best;
            const int label = labels(row);
            losses(row) = 0;
            if (label == unlabelled) {
                for (int j = 0; scale != 0 && j < width; ++j) z[j] = 0;
                return;
            }
            const Real top = z[best];
            double total = 0;
            for (int j = 0; j < width; ++j) total += static_cast<double>(exponential(z[j] - top));
            losses(row) = Kokkos::log(total) - static_cast<double>(z[label] - top);
            if (scale == 0) return;
            const Real factor = static_cast<Real>(static_cast<double>(scale) / total);
            for (int j = 0; j < width; ++j) z[j] = factor * exponential(z[j] - top);
            z[label] -= scale;
        });
    const auto host_losses = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, losses);
    const auto host_labels = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, labels);
    CrossEntropySum sum;
    for (std::size_t row = 0; row < logits.extent(0); ++row) {
        sum.loss += host_losses(row);
        sum.labelled += host_labels(row) != unlabelled ? 1 : 0;
    }
    return sum;
}

template CrossEntropySum cross_entropy<float>(const Matrix<float>&, const Vector<std::int32_t>&, float,
                                              const Vector<std::int32_t>&);
template CrossEntropySum cross_entropy<double>(const Matrix<double>&, const Vector<std::int32_t>&, double,
                                               const Vector<std::int32_t>&);

} // namespace lolcats
