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
double relative_squared_error(const Matrix<Real>& y, int length, const SquaredError<Real>& error) {
    const auto squares = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, row_squares(error.teacher));
    double total = 0;
    for (std::size_t first = 0; first < y.extent(0); first += length) {
        double mean = 0;
        for (int row = 0; row < length; ++row) mean += squares(first + row);
        mean /= static_cast<double>(length) * y.extent(1);
        const auto rows = [&](const Matrix<Real>& x) -> Matrix<Real> {
            return Kokkos::subview(x, Kokkos::make_pair(first, first + length), Kokkos::ALL);
        };
        const SquaredError<Real> of_sequence{rows(error.teacher), static_cast<Real>(error.scale / mean),
                                             rows(error.dy)};
        total += squared_error(rows(y), of_sequence) / mean;
    }
    return total;
}

template <class Real>
double squared_error(const Matrix<Real>& y, const SquaredError<Real>& error) {
    const int columns = static_cast<int>(y.extent(1));
    Vector<double> row_sums(uninitialized("squared_error_rows"), y.extent(0));
    for_each_row(
        "squared_error", y.extent(0), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            const double sum = team.template sum<double>(columns, [&](int j) {
                const Real difference = y(row, j) - error.teacher(row, j);
                error.dy(row, j) = 2 * error.scale * difference;
                return static_cast<double>(difference) * static_cast<double>(difference);
            });
            team.once([&] { row_sums(row) = sum; });
        });
    return sum_in_order(row_sums);
}

template <class Real>
double student_squared_error(const AttentionShape& shape, const Student<Real>& student,
                             const AttentionInputs<Real>& inputs, const AttentionOutputs<Real>& outputs,
                             const SquaredError<Real>& error) {
    const Kokkos::Profiling::ScopedRegion region("student_attention");
    double sum = 0;
    if (twin::student_squared_error(shape, student, inputs, outputs, error, sum)) return sum;
    student_attention(shape, student, inputs, outputs);
    return squared_error(outputs.y, error);
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template double squared_error<Real>(const Matrix<Real>&, const SquaredError<Real>&);                               \
    template double relative_squared_error<Real>(const Matrix<Real>&, int, const SquaredError<Real>&);                 \
    template double student_squared_error<Real>(const AttentionShape&, const Student<Real>&,                           \
                                                const AttentionInputs<Real>&, const AttentionOutputs<Real>&,           \
                                                const SquaredError<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
