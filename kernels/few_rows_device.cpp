#include "kernels/few_rows.hpp"
#include "kernels/rounding.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

/// A team of 256 threads has one output and takes the rows in turn: from the second on, its weights are in the cache.
template <class T>
void few_rows_multiply(const FewRowsProduct<T>& product) {
    for_each_row(
        "few_rows_multiply", product.shape.n, KOKKOS_LAMBDA(const RowTeam& team, int output) {
            const FewRowsProduct<T>& p = product;
            const T* weights = p.w + static_cast<std::size_t>(output) * p.w_row;
            for (int row = 0; row < p.shape.m; ++row) {
                const float* in = p.x + static_cast<std::size_t>(row) * p.x_row;
                const float sum =
                    team.template sum<float>(p.shape.k, [=](int l) { return in[l] * widened(weights[l]); });
                team.once([=] {
                    float& out = p.y[static_cast<std::size_t>(row) * p.y_row + output];
                    const float old = p.beta == 0 ? 0.0F : p.beta * out;
                    out = p.alpha * (p.w_scales == nullptr ? sum : p.w_scales[output] * sum) + old +
                          (p.bias == nullptr ? 0.0F : p.bias[output]);
                });
            }
        });
}

template void few_rows_multiply(const FewRowsProduct<float>&);
template void few_rows_multiply(const FewRowsProduct<BFloat16>&);
template void few_rows_multiply(const FewRowsProduct<Float8>&);

} // namespace lolcats
