#include "kernels/cross_entropy.hpp"

#include "kernels/row_softmax.hpp"
#include "kernels/sum_in_order.hpp"

namespace lolcats {

template <class Real>
CrossEntropySum cross_entropy(const Matrix<Real>& logits, const Vector<std::int32_t>& labels, Real scale,
                              const Vector<std::int32_t>& predicted) {
    const int width = static_cast<int>(logits.extent(1));
    Vector<double> losses(uninitialized("row_losses"), logits.extent(0));
    for_each_row(
        "cross_entropy", logits.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            Real* z = &logits(row, 0);
            const int best = team.first_largest(width, z);
            const int label = labels(row);
            team.once([&] {
                predicted(row) = best;
                losses(row) = 0;
            });
            if (label == unlabelled) {
                if (scale != 0) team.for_each(width, [=](int j) { z[j] = 0; });
                return;
            }
            const RowSoftmax<Real> softmax(team, width, z, z[best]);
            const Real top = softmax.top;
            team.once([&] { losses(row) = Kokkos::log(softmax.total) - static_cast<double>(z[label] - top); });
            if (scale == 0) return;
            const Real factor = static_cast<Real>(static_cast<double>(scale) / softmax.total);
            team.for_each(width, [=](int j) { z[j] = factor * exponential(z[j] - top); });
            team.once([=] { z[label] -= scale; });
        });
    const auto host_labels = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, labels);
    CrossEntropySum sum;
    sum.loss = sum_in_order(losses);
    for (std::size_t row = 0; row < logits.extent(0); ++row) sum.labelled += host_labels(row) != unlabelled ? 1 : 0;
    return sum;
}

template CrossEntropySum cross_entropy<float>(const Matrix<float>&, const Vector<std::int32_t>&, float,
                                              const Vector<std::int32_t>&);
template CrossEntropySum cross_entropy<double>(const Matrix<double>&, const Vector<std::int32_t>&, double,
                                               const Vector<std::int32_t>&);

} // namespace lolcats
