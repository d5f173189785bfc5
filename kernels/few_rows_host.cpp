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

/// Rows `row` on and outputs `output` on.
template <int Rows, int Outputs, class T>
void block(const FewRowsProduct<T>& p, int row, int output) {
    const auto x_row = static_cast<std::size_t>(p.x_row);
    const auto w_row = static_cast<std::size_t>(p.w_row);
    float sums[Rows][Outputs];
    dot_products<Rows, Outputs>(p.shape.k, p.x + row * x_row, x_row, p.w + output * w_row, w_row, sums);
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Outputs; ++j) {
            float& out = p.y[static_cast<std::size_t>(row + i) * p.y_row + output + j];
            const float old = p.beta == 0 ? 0.0F : p.beta * out;
            const float scale = p.w_scales == nullptr ? 1.0F : p.w_scales[output + j];
            out = p.alpha * (scale * sums[i][j]) + old + (p.bias == nullptr ? 0.0F : p.bias[output + j]);
        }
}

/// All rows of some outputs, whose weights stay in the cache from one group of rows to the next.
template <int Outputs, class T>
void all_rows(const FewRowsProduct<T>& p, int output) {
    const int m = p.shape.m;
    int row = 0;
    for (; row + rows_in_registers <= m; row += rows_in_registers) block<rows_in_registers, Outputs>(p, row, output);
    for (; row + 4 <= m; row += 4) block<4, Outputs>(p, row, output);
    for (; row + 2 <= m; row += 2) block<2, Outputs>(p, row, output);
    if (row < m) block<1, Outputs>(p, row, output);
}

} // namespace

template <class T>
void few_rows_multiply(const FewRowsProduct<T>& product) {
    const int tasks = (product.shape.n + outputs_in_task - 1) / outputs_in_task;
    Kokkos::parallel_for("few_rows_multiply", Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, tasks),
                         [=](int task) {
                             const int end = std::min(product.shape.n, (task + 1) * outputs_in_task);
                             int output = task * outputs_in_task;
                             for (; output + outputs_in_registers <= end; output += outputs_in_registers)
                                 all_rows<outputs_in_registers>(product, output);
                             if (output < end) all_rows<1>(product, output);
                         });
}

template void few_rows_multiply(const FewRowsProduct<float>&);
template void few_rows_multiply(const FewRowsProduct<BFloat16>&);
template void few_rows_multiply(const FewRowsProduct<Float8>&);

} // namespace lolcats
