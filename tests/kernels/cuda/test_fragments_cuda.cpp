/// Products of one warp, by every way to load an operand, against plain loops: on a GPU this is what shows that the
/// instructions' layouts are those that kernels/cuda/fragments.cuh and the host shim believe in.
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/launch.cuh"
#include "tests/kernels/cuda/device.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/random.hpp"

namespace lolcats::test::test_fragments_cuda {
namespace {

using cuda::BFloat;
using cuda::Pair;
using cuda::pitch;

enum class Left { from_global, from_shared, transposed };

constexpr int m = 16;
constexpr int n = 32;
constexpr int k = 48;

/// c[m, n] = A B. `left` is A [m, k] or, transposed, A^T [k, m]; `right` is B [k, n] or, transposed, B^T [n, k].
__global__ void product_kernel(const BFloat* left, Left how, const BFloat* right, bool right_transposed, float* c) {
    BFloat* const a_tile = cuda::shared_memory();
    BFloat* const b_tile = a_tile + k * pitch(k);
    if (how == Left::transposed)
        cuda::copy_tile<m>(a_tile, left, m, k, k);
    else
        cuda::copy_tile<k>(a_tile, left, k, m, m);
    if (right_transposed)
        cuda::copy_tile<k>(b_tile, right, k, n, n);
    else
        cuda::copy_tile<n>(b_tile, right, n, k, k);
    cuda::wait_for_copies_of_block();
    Pair a[k / 16][4];
    for (int step = 0; step < k / 16; ++step) {
        if (how == Left::from_global) cuda::load_rows(a[step], left + step * 16, k, m);
        if (how == Left::from_shared) cuda::load_left(a[step], a_tile + step * 16, pitch(k));
        if (how == Left::transposed) cuda::load_left_transposed(a[step], a_tile + step * 16 * pitch(m), pitch(m));
    }
    float sums[n / 8][4];
    cuda::clear(sums);
    if (right_transposed)
        cuda::multiply_transposed<k, n>(sums, a, b_tile, pitch(k));
    else
        cuda::multiply<k, n>(sums, a, b_tile, pitch(n));
    cuda::for_each_element(sums, [&](int row, int column, float& value) { c[row * n + column] = value; });
}

/// c[m, n] = (A B)[:, 0:16] A', the first product's result as the second one's operand. A [m, 16], B [16, 16], A' [16,
/// n].
__global__ void chained_kernel(const BFloat* a, const BFloat* b, const BFloat* after, float* c) {
    BFloat* const b_tile = cuda::shared_memory();
    BFloat* const after_tile = b_tile + 16 * pitch(16);
    cuda::copy_tile<16>(b_tile, b, 16, 16, 16);
    cuda::copy_tile<n>(after_tile, after, n, 16, 16);
    cuda::wait_for_copies_of_block();
    Pair left[4];
    cuda::load_rows(left, a, 16, m);
    float first[2][4];
    cuda::clear(first);
    cuda::multiply_step<16>(first, left, b_tile, pitch(16));
    cuda::as_left(left, first, 0);
    float second[n / 8][4];
    cuda::clear(second);
    cuda::multiply_step<n>(second, left, after_tile, pitch(n));
    cuda::for_each_element(second, [&](int row, int column, float& value) { c[row * n + column] = value; });
}

std::vector<double> product(int rows, int inner, int columns, const std::vector<double>& a,
                            const std::vector<double>& b) {
    std::vector<double> c(static_cast<std::size_t>(rows) * columns);
    for (int i = 0; i < rows; ++i)
        for (int l = 0; l < inner; ++l)
            for (int j = 0; j < columns; ++j) c[i * columns + j] += a[i * inner + l] * b[l * columns + j];
    return c;
}

std::vector<double> transposed(int rows, int columns, const std::vector<double>& a) {
    std::vector<double> out(a.size());
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) out[j * rows + i] = a[i * columns + j];
    return out;
}

DeviceArray<unsigned short> bf16_on_device(const std::vector<double>& values) {
    std::vector<unsigned short> bits;
    for (const double x : values) bits.push_back(to_bfloat16(static_cast<float>(x)).bits);
    return DeviceArray<unsigned short>(bits);
}

const BFloat* as_bf16(const DeviceArray<unsigned short>& array) {
    return reinterpret_cast<const BFloat*>(array.data());
}

constexpr std::size_t shared_bytes = 2 * k * pitch(k) * sizeof(BFloat);

CUDA_TEST(ProductsOfAllOperandsAgree) {
    const auto a = rounded_to_bf16(random_values(m * k, 1));
    const auto b = rounded_to_bf16(random_values(k * n, 2));
    for (const auto how : {Left::from_global, Left::from_shared, Left::transposed})
        for (const bool right_transposed : {false, true}) {
            const auto left = bf16_on_device(how == Left::transposed ? transposed(m, k, a) : a);
            const auto right = bf16_on_device(right_transposed ? transposed(k, n, b) : b);
            const auto c = poisoned_on_device(m * n);
            cuda::launch("product", product_kernel, dim3(1), 32, shared_bytes, nullptr, as_bf16(left), how,
                         as_bf16(right), right_transposed, c.data());
            EXPECT_TRUE(close(c.values(), product(m, k, n, a, b), 1e-6))
                << "left " << static_cast<int>(how) << " right transposed " << right_transposed;
        }
}

CUDA_TEST(AProductIsTheNextOnesOperand) {
    const auto a = rounded_to_bf16(random_values(m * 16, 3));
    const auto b = rounded_to_bf16(random_values(16 * 16, 4));
    const auto after = rounded_to_bf16(random_values(16 * n, 5));
    const auto c = poisoned_on_device(m * n);
    const auto a_device = bf16_on_device(a);
    const auto b_device = bf16_on_device(b);
    const auto after_device = bf16_on_device(after);
    cuda::launch("chained", chained_kernel, dim3(1), 32, shared_bytes, nullptr, as_bf16(a_device), as_bf16(b_device),
                 as_bf16(after_device), c.data());
    const auto first = rounded_to_bf16(product(m, 16, 16, a, b));
    EXPECT_TRUE(close(c.values(), product(m, 16, n, first, after), 1e-6));
}

} // namespace
} // namespace lolcats::test::test_fragments_cuda
