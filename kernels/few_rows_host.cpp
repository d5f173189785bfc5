#include "kernels/few_rows.hpp"
#include "kernels/views.hpp"

#include <algorithm>
#include <cstring>

namespace lolcats {

namespace {

constexpr int lanes = 16;
constexpr int rows_in_registers = 8;
constexpr int outputs_in_registers = 2;
constexpr int outputs_in_task = 32;

using Lanes = float __attribute__((vector_size(lanes * sizeof(float))));
using ByteLanes = std::uint8_t __attribute__((vector_size(lanes)));
using HalfLanes = std::uint16_t __attribute__((vector_size(lanes * sizeof(std::uint16_t))));
using WideLanes = std::uint32_t __attribute__((vector_size(lanes * sizeof(std::uint32_t))));

/// The first `count` of 16 elements, zero after them.
template <class Vector, class T>
inline Vector load(const T* data, int count) {
    Vector vector{};
    std::memcpy(&vector, data, count * sizeof(T));
    return vector;
}

inline Lanes widened(const float* data, int count) {
    return load<Lanes>(data, count);
}

inline Lanes widened(const BFloat16* data, int count) {
    const WideLanes bits = __builtin_convertvector(load<HalfLanes>(data, count), WideLanes) << 16;
    Lanes values;
    std::memcpy(&values, &bits, sizeof values);
    return values;
}

/// to_float(Float8) of 16 numbers.
inline Lanes widened(const Float8* data, int count) {
    const WideLanes bits = __builtin_convertvector(load<ByteLanes>(data, count), WideLanes);
    const WideLanes magnitude = bits & 0x7fU;
    const Lanes small = __builtin_convertvector(magnitude, Lanes) * float8_detail::smallest_step;
    WideLanes small_bits;
    std::memcpy(&small_bits, &small, sizeof small);
    WideLanes wide = magnitude < 8 ? small_bits : (magnitude << 20) + float8_detail::exponent_shift;
    wide = magnitude == 0x7fU ? WideLanes{} + 0x7fc00000U : wide;
    wide |= (bits & 0x80U) << 24;
    Lanes values;
    std::memcpy(&values, &wide, sizeof values);
    return values;
}

inline float total(const Lanes& sums) {
    float parts[lanes];
    std::memcpy(parts, &sums, sizeof parts);
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
    return parts[0];
}

/// sums[Rows][Outputs] over k; every one is built in the same way whatever Rows and Outputs are.
template <int Rows, int Outputs, class T>
inline void dot_products(int k, const float* x, std::size_t x_row, const T* w, std::size_t w_row,
                         float (&sums)[Rows][Outputs]) {
    Lanes parts[Rows][Outputs] = {};
    const auto add = [&](int l, int count) __attribute__((always_inline)) {
        Lanes weights[Outputs];
        for (int j = 0; j < Outputs; ++j) weights[j] = widened(w + j * w_row + l, count);
        for (int i = 0; i < Rows; ++i) {
            const Lanes values = load<Lanes>(x + i * x_row + l, count);
            for (int j = 0; j < Outputs; ++j) parts[i][j] += values * weights[j];
        }
    };
    int l = 0;
    for (; l + lanes <= k; l += lanes) add(l, lanes);
    if (l < k) add(l, k - l);
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Outputs; ++j) sums[i][j] = total(parts[i][j]);
}

template <class T>
struct Product {
    int m, n, k;
    float alpha;
    const float* x;
    std::size_t x_row;
    const T* w;
    std::size_t w_row;
    const float* w_scales;
    float beta;
    const float* bias;
    float* y;
    std::size_t y_row;

    template <int Rows, int Outputs>
    void block(int row, int output) const {
        float sums[Rows][Outputs];
        dot_products<Rows, Outputs>(k, x + row * x_row, x_row, w + output * w_row, w_row, sums);
        for (int i = 0; i < Rows; ++i)
            for (int j = 0; j < Outputs; ++j) {
                float& out = y[(row + i) * y_row + output + j];
                const float old = beta == 0 ? 0.0F : beta * out;
                const float scale = w_scales == nullptr ? 1.0F : w_scales[output + j];
                out = alpha * (scale * sums[i][j]) + old + (bias == nullptr ? 0.0F : bias[output + j]);
            }
    }

    /// All rows of some outputs, whose weights stay in the cache from one group of rows to the next.
    template <int Outputs>
    void outputs(int output) const {
        int row = 0;
        for (; row + rows_in_registers <= m; row += rows_in_registers) block<rows_in_registers, Outputs>(row, output);
        for (; row + 4 <= m; row += 4) block<4, Outputs>(row, output);
        for (; row + 2 <= m; row += 2) block<2, Outputs>(row, output);
        if (row < m) block<1, Outputs>(row, output);
    }
};

} // namespace

template <class T>
void few_rows_multiply(int m, int n, int k, float alpha, const float* x, int x_row, const T* w, int w_row,
                       const float* w_scales, float beta, const float* bias, float* y, int y_row) {
    const Product<T> product{.m = m,
                             .n = n,
                             .k = k,
                             .alpha = alpha,
                             .x = x,
                             .x_row = static_cast<std::size_t>(x_row),
                             .w = w,
                             .w_row = static_cast<std::size_t>(w_row),
                             .w_scales = w_scales,
                             .beta = beta,
                             .bias = bias,
                             .y = y,
                             .y_row = static_cast<std::size_t>(y_row)};
    const int tasks = (n + outputs_in_task - 1) / outputs_in_task;
    Kokkos::parallel_for("few_rows_multiply", Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, tasks),
                         [=](int task) {
                             const int end = std::min(n, (task + 1) * outputs_in_task);
                             int output = task * outputs_in_task;
                             for (; output + outputs_in_registers <= end; output += outputs_in_registers)
                                 product.template outputs<outputs_in_registers>(output);
                             if (output < end) product.template outputs<1>(output);
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
