#pragma once
/// The host's forms of tile operations: one thread, vectors of the compiler's own kind. Left to itself, GCC keeps the
/// sums of such a block of loops in memory.
#include "kernels/simd_host.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

namespace lolcats::tile {

/// Element (i, j) at data[i * row + j * column]: a matrix or, with the strides exchanged, its transpose.
template <class Real>
struct Operand {
    const Real* data;
    int row;
    int column;
};

namespace host {

#ifdef __CUDACC__

// Where there is a GPU no tile is computed on the host, and nvcc need not read the compiler's vectors.
template <class Real>
inline void multiply(int m, int n, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c, int c_row,
                     bool add) {
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            Real sum = 0;
            for (int l = 0; l < k; ++l) sum += a.data[i * a.row + l * a.column] * b[l * b_row + j];
            c[i * c_row + j] = (add ? c[i * c_row + j] : Real(0)) + alpha * sum;
        }
}
template <class Real>
inline void transpose(int m, int n, const Real* in, int in_row, Real* out, int out_row) {
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) out[j * out_row + i] = in[i * in_row + j];
}
template <class Real>
inline void add_column_sums(int m, int n, const Real* in, int in_row, Real* out) {
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) out[j] += in[i * in_row + j];
}

#else

/// Rows of A in registers: with two vectors of columns, 12 sums of the 16 registers that AVX2 has.
constexpr int block_rows = 6;
/// Elements of B that are computed with at once: half of a first-level cache of 32 KB. Rows that lie far apart are
/// copied, so that they do not drive each other out.
template <class Real>
constexpr int cached_elements = (16 << 10) / static_cast<int>(sizeof(Real));
constexpr std::size_t far_apart_bytes = 1024;

/// C[Rows, Vectors * width] (+)= alpha A B. Every sum runs over k in order, whatever the block is.
template <int Rows, int Vectors, class Real>
inline void multiply_block(int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c, int c_row, bool add) {
    using V = Simd<Real>;
    typename V::Lanes sums[Rows][Vectors] = {};
    for (int l = 0; l < k; ++l) {
        typename V::Lanes columns[Vectors];
        for (int j = 0; j < Vectors; ++j)
            columns[j] = V::load(b + static_cast<std::ptrdiff_t>(l) * b_row + j * V::width);
        for (int i = 0; i < Rows; ++i) {
            const Real factor = a.data[i * a.row + l * a.column];
            for (int j = 0; j < Vectors; ++j) sums[i][j] += factor * columns[j];
        }
    }
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Vectors; ++j) {
            Real* out = c + static_cast<std::ptrdiff_t>(i) * c_row + j * V::width;
            const typename V::Lanes scaled = alpha * sums[i][j];
            V::store(add ? V::load(out) + scaled : scaled, out);
        }
}

/// The last columns, fewer than a vector.
template <class Real>
inline void multiply_rest(int m, int count, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c,
                          int c_row, bool add) {
    using V = Simd<Real>;
    for (int i = 0; i < m; ++i) {
        typename V::Lanes sums{};
        for (int l = 0; l < k; ++l)
            sums += a.data[i * a.row + l * a.column] * V::load(b + static_cast<std::ptrdiff_t>(l) * b_row, count);
        Real* out = c + static_cast<std::ptrdiff_t>(i) * c_row;
        const typename V::Lanes scaled = alpha * sums;
        V::store(add ? V::load(out, count) + scaled : scaled, out, count);
    }
}

/// Rows of A against all columns of a block of B: what is read again and again, B, stays in the first-level cache.
template <int Rows, class Real>
inline void multiply_rows(int n, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c, int c_row,
                          bool add) {
    constexpr int width = Simd<Real>::width;
    int j = 0;
    for (; j + 2 * width <= n; j += 2 * width) multiply_block<Rows, 2>(k, alpha, a, b + j, b_row, c + j, c_row, add);
    if (j < n) multiply_block<Rows, 1>(k, alpha, a, b + j, b_row, c + j, c_row, add);
}

template <class Real>
inline void multiply_columns(int m, int n, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c,
                             int c_row, bool add) {
    const auto rows = [&]<int Rows>(int i) {
        multiply_rows<Rows>(n, k, alpha, {a.data + static_cast<std::ptrdiff_t>(i) * a.row, a.row, a.column}, b, b_row,
                            c + static_cast<std::ptrdiff_t>(i) * c_row, c_row, add);
    };
    int i = 0;
    for (; i + block_rows <= m; i += block_rows) rows.template operator()<block_rows>(i);
    for (; i + 4 <= m; i += 4) rows.template operator()<4>(i);
    for (; i + 2 <= m; i += 2) rows.template operator()<2>(i);
    if (i < m) rows.template operator()<1>(i);
}

template <class Real>
inline void multiply(int m, int n, int k, Real alpha, Operand<Real> a, const Real* b, int b_row, Real* c, int c_row,
                     bool add) {
    using V = Simd<Real>;
    constexpr int pair = 2 * V::width;
    const int whole = n / V::width * V::width;
    const int block = std::max(pair, cached_elements<Real> / std::max(k, 1) / pair * pair);
    const bool copy = b_row * sizeof(Real) >= far_apart_bytes && m > block_rows && k * pair <= cached_elements<Real>;
    alignas(64) Real copied[cached_elements<Real>];
    for (int j = 0; j < whole; j += block) {
        const int columns = std::min(block, whole - j);
        const Real* from = b + j;
        if (copy) {
            for (int l = 0; l < k; ++l)
                std::memcpy(copied + l * columns, from + static_cast<std::ptrdiff_t>(l) * b_row,
                            columns * sizeof(Real));
            from = copied;
        }
        multiply_columns(m, columns, k, alpha, a, from, copy ? columns : b_row, c + j, c_row, add);
    }
    if (whole < n) multiply_rest(m, n - whole, k, alpha, a, b + whole, b_row, c + whole, c_row, add);
}

/// In every group of 2 half lanes, exchanges the second half of `a` with the first half of `b`.
template <int half, class Lanes, int... lane>
inline void exchange_halves(Lanes& a, Lanes& b, std::integer_sequence<int, lane...>) {
    constexpr int width = sizeof...(lane);
    const Lanes first = __builtin_shufflevector(a, b, ((lane & half) == 0 ? lane : width + lane - half)...);
    b = __builtin_shufflevector(a, b, ((lane & half) == 0 ? lane + half : width + lane)...);
    a = first;
}

/// The same for every two rows `half` apart. With half = width / 2, ..., 1 this transposes a square.
template <int half, class Real>
inline void exchange_halves(typename Simd<Real>::Lanes (&rows)[Simd<Real>::width]) {
    constexpr int width = Simd<Real>::width;
    for (int i = 0; i < width; ++i)
        if ((i & half) == 0) exchange_halves<half>(rows[i], rows[i + half], std::make_integer_sequence<int, width>());
    if constexpr (half > 1) exchange_halves<half / 2, Real>(rows);
}

template <class Real>
inline void transpose_square(const Real* in, int in_row, Real* out, int out_row) {
    using V = Simd<Real>;
    typename V::Lanes rows[V::width];
    for (int i = 0; i < V::width; ++i) rows[i] = V::load(in + static_cast<std::ptrdiff_t>(i) * in_row);
    exchange_halves<V::width / 2, Real>(rows);
    for (int i = 0; i < V::width; ++i) V::store(rows[i], out + static_cast<std::ptrdiff_t>(i) * out_row);
}

/// out[n, m] = in[m, n]^T
template <class Real>
inline void transpose(int m, int n, const Real* in, int in_row, Real* out, int out_row) {
    constexpr int side = Simd<Real>::width;
    for (int i = 0; i < m; i += side)
        for (int j = 0; j < n; j += side) {
            const Real* from = in + static_cast<std::ptrdiff_t>(i) * in_row + j;
            Real* to = out + static_cast<std::ptrdiff_t>(j) * out_row + i;
            if (i + side <= m && j + side <= n) {
                transpose_square(from, in_row, to, out_row);
                continue;
            }
            for (int c = 0; c < std::min(side, n - j); ++c)
                for (int r = 0; r < std::min(side, m - i); ++r)
                    to[static_cast<std::ptrdiff_t>(c) * out_row + r] =
                        from[static_cast<std::ptrdiff_t>(r) * in_row + c];
        }
}

/// out[n] += column sums of in[m, n].
template <class Real>
inline void add_column_sums(int m, int n, const Real* in, int in_row, Real* out) {
    using V = Simd<Real>;
    for (int j = 0; j < n; j += V::width) {
        const int count = j + V::width <= n ? V::width : n - j;
        const auto at = [&](const Real* row) { return count == V::width ? V::load(row) : V::load(row, count); };
        typename V::Lanes sums{};
        for (int i = 0; i < m; ++i) sums += at(in + static_cast<std::ptrdiff_t>(i) * in_row + j);
        for (int c = 0; c < count; ++c) out[j + c] += sums[c];
    }
}

#endif

} // namespace host

} // namespace lolcats::tile
