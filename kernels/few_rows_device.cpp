#include "kernels/few_rows.hpp"
#include "kernels/rounding.hpp"
#include "kernels/row_team.hpp"

namespace lolcats {

/// A team of 256 threads has one output and takes the rows in turn: from the second on, its weights are in the cache.
template <class T>
void few_rows_multiply(int m, int n, int k, float alpha, const float* x, int x_row, const T* w, int w_row,
                       const float* w_scales, float beta, const float* bias, float* y, int y_row) {
    for_each_row(
        "few_rows_multiply", n, KOKKOS_LAMBDA(const RowTeam& team, int output) {
            const T* weights = w + static_cast<std::size_t>(output) * w_row;
            for (int row = 0; row < m; ++row) {
                const float* in = x + static_cast<std::size_t>(row) * x_row;
                const float sum = team.template sum<float>(k, [=](int l) { return in[l] * widened(weights[l]); });
                team.once([=] {
                    float& out = y[static_cast<std::size_t>(row) * y_row + output];
                    const float old = beta == 0 ? 0.0F : beta * out;
                    out = alpha * (w_scales == nullptr ? sum : w_scales[output] * sum) + old +
                          (bias == nullptr ? 0.0F : bias[output]);
                });
            }
        });
}

#define LOLCATS_INSTANTIATE(T)                                                                                         \
    template void few_rows_multiply<T>(int, int, int, float, const float*, int, const T*, int, const float*, float,    \
                                       const float*, float*, int);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(BFloat16)
LOLCATS_INSTANTIATE(Float8)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
