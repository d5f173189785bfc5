#include "kernels/divergence.hpp"

#include "kernels/cross_entropy.hpp"
#include "kernels/row_softmax.hpp"
#include "kernels/sum_in_order.hpp"

namespace lolcats {

template <class Real>
double divergence(const Matrix<Real>& student, const Vector<std::int32_t>& labels, Real scale,
                  const Matrix<Real>& teacher) {
    const int width = static_cast<int>(student.extent(1));
    Vector<double> divergences(uninitialized("row_divergences"), student.extent(0));
    for_each_row(
        "divergence", student.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const Real* z = &student(row, 0);
            Real* t = &teacher(row, 0);
            if (labels(row) == unlabelled) {
                team.once([&] { divergences(row) = 0; });
                if (scale != 0) team.for_each(width, [=](int j) { t[j] = 0; });
                return;
            }
            const RowSoftmax<Real> of_student(team, width, z);
            const RowSoftmax<Real> of_teacher(team, width, t);
            const double sum = team.template sum<double>(width, [=](int j) {
                return of_teacher.probability(t[j]) *
                       (of_teacher.log_probability(t[j]) - of_student.log_probability(z[j]));
            });
            team.once([&] { divergences(row) = sum; });
            if (scale == 0) return;
            team.for_each(width, [=](int j) {
                t[j] = static_cast<Real>(static_cast<double>(scale) *
                                         (of_student.probability(z[j]) - of_teacher.probability(t[j])));
            });
        });
    return sum_in_order(divergences);
}

template double divergence<float>(const Matrix<float>&, const Vector<std::int32_t>&, float, const Matrix<float>&);
template double divergence<double>(const Matrix<double>&, const Vector<std::int32_t>&, double, const Matrix<double>&);

} // namespace lolcats
