#include "kernels/attention_twin.hpp"
#include "kernels/row_team.hpp"
#include "kernels/transfer_loss.hpp"

namespace lolcats {

template <class Real>
double squared_error(const Matrix<Real>& student, const Matrix<Real>& teacher, Real scale, const Matrix<Real>& dy) {
    const int columns = static_cast<int>(student.extent(1));
    // Row sums first, then one fixed order: the result does not depend on the number of threads.
    Vector<double> row_sums(uninitialized("squared_error_rows"), student.extent(0));
    for_each_row(
        "squared_error", student.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const double sum = team.template sum<double>(columns, [&](int j) {
                const Real difference = student(row, j) - teacher(row, j);
                dy(row, j) = 2 * scale * difference;
                return static_cast<double>(difference) * static_cast<double>(difference);
            });
            team.once([&] { row_sums(row) = sum; });
        });
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, row_sums);
    double total = 0;
    for (std::size_t row = 0; row < host.extent(0); ++row) total += host(row);
    return total;
}

template <class Real>
double student_squared_error(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameters<Real>& parameters, const Matrix<Real>& q, const Matrix<Real>& k,
                             const Matrix<Real>& v, const Matrix<Real>& teacher, Real scale, const Matrix<Real>& y,
                             const Matrix<Real>& normalizer, const Matrix<Real>& dy) {
    const Kokkos::Profiling::ScopedRegion region("student_attention");
    double error = 0;
    if (twin::student_squared_error(shape, form, parameters, q, k, v, teacher, scale, y, normalizer, dy, error))
        return error;
    student_attention(shape, form, parameters, q, k, v, y, normalizer);
    return squared_error(y, teacher, scale, dy);
}

template double squared_error<float>(const Matrix<float>&, const Matrix<float>&, float, const Matrix<float>&);
template double squared_error<double>(const Matrix<double>&, const Matrix<double>&, double, const Matrix<double>&);

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template double student_squared_error<Real>(const AttentionShape&, const StudentForm&,                             \
                                                const StudentParameters<Real>&, const Matrix<Real>&,                   \
                                                const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&, Real,   \
                                                const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
