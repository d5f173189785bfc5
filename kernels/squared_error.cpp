#include "kernels/attention_twin.hpp"
#include "kernels/row_team.hpp"
#include "kernels/sum_in_order.hpp"
#include "kernels/transfer_loss.hpp"

namespace lolcats {

namespace {

template <class Real>
Vector<double> row_squares(const Matrix<Real>& x) {
    const int columns = static_cast<int>(x.extent(1));
    Vector<double> sums(uninitialized("row_squares"), x.extent(0));
    for_each_row(
        "row_squares", x.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const double sum = team.template sum<double>(columns, [&](int j) {
                const double value = x(row, j);
                return value * value;
            });
            team.once([&] { sums(row) = sum; });
        });
    return sums;
}

} // namespace

template <class Real>
double relative_squared_error(const Matrix<Real>& student, const Matrix<Real>& teacher, int length, Real scale,
                              const Matrix<Real>& dy) {
    const auto squares = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, row_squares(teacher));
    double total = 0;
    for (std::size_t first = 0; first < teacher.extent(0); first += length) {
        double mean = 0;
        for (int row = 0; row < length; ++row) mean += squares(first + row);
        mean /= static_cast<double>(length) * teacher.extent(1);
        const auto rows = [&](const Matrix<Real>& x) -> Matrix<Real> {
            return Kokkos::subview(x, Kokkos::make_pair(first, first + length), Kokkos::ALL);
        };
        total += squared_error(rows(student), rows(teacher), static_cast<Real>(scale / mean), rows(dy)) / mean;
    }
    return total;
}

template <class Real>
double squared_error(const Matrix<Real>& student, const Matrix<Real>& teacher, Real scale, const Matrix<Real>& dy) {
    const int columns = static_cast<int>(student.extent(1));
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
    return sum_in_order(row_sums);
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
    template double relative_squared_error<Real>(const Matrix<Real>&, const Matrix<Real>&, int, Real,                  \
                                                 const Matrix<Real>&);                                                 \
    template double student_squared_error<Real>(const AttentionShape&, const StudentForm&,                             \
                                                const StudentParameters<Real>&, const Matrix<Real>&,                   \
                                                const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&, Real,   \
                                                const Matrix<Real>&, const Matrix<Real>&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
