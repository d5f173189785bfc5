#include "kernels/row_team.hpp"
#include "kernels/student_attention.hpp"

namespace lolcats {

template <class Real>
void sum_head_groups(const AttentionShape& shape, const Matrix<Real>& per_head, const Matrix<Real>& out) {
    const int group = shape.group();
    const int d = shape.head_dim;
    for_each_row(
        "sum_head_groups", shape.rows(), KOKKOS_LAMBDA(const RowTeam& team, int row) {
            for (int kv = 0; kv < shape.kv_heads; ++kv)
                team.for_each(d, [&](int j) {
                    Real sum = 0;
                    for (int g = 0; g < group; ++g) sum += per_head(row, (kv * group + g) * d + j);
                    out(row, kv * d + j) = sum;
                });
        });
}

template void sum_head_groups<float>(const AttentionShape&, const Matrix<float>&, const Matrix<float>&);
template void sum_head_groups<double>(const AttentionShape&, const Matrix<double>&, const Matrix<double>&);

} // namespace lolcats
