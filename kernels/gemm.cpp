#include "kernels/gemm.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/exact_gemm.hpp"
#include "kernels/few_rows.hpp"
#include "kernels/products.hpp"
#include "lolcats/error.hpp"

#include <chrono>

namespace lolcats {

namespace {

template <class Real>
ProductShape product_shape(Transpose a_op, Transpose b_op, const Matrix<Real>& a, const Matrix<Real>& b,
                           const Matrix<Real>& c) {
    const bool ta = a_op == Transpose::yes;
    const bool tb = b_op == Transpose::yes;
    const auto m = a.extent(ta ? 1 : 0);
    const auto k = a.extent(ta ? 0 : 1);
    const auto n = b.extent(tb ? 0 : 1);
    if (b.extent(tb ? 1 : 0) != k || c.extent(0) != m || c.extent(1) != n)
        fail("matrix product of shapes [{}, {}] and [{}, {}] into [{}, {}]: a bug, please report it", a.extent(0),
             a.extent(1), b.extent(0), b.extent(1), c.extent(0), c.extent(1));
    return {static_cast<int>(m), static_cast<int>(n), static_cast<int>(k)};
}

/// An array of at least `size` elements that keeps its memory from one use to the next.
template <class T>
T* reserve(Vector<T>& buffer, std::size_t size, const char* label) {
    if (buffer.extent(0) < size) {
        buffer = {}; // hand the old memory back first
        buffer = Vector<T>(uninitialized(label), size);
    }
    return buffer.data();
}

template <class Real>
void round_to_bf16(const Real* in, std::size_t count, BFloat16* out) {
    Kokkos::parallel_for(
        "round_to_bf16", Kokkos::RangePolicy<Execution>(0, count),
        KOKKOS_LAMBDA(std::size_t i) { out[i] = to_bfloat16(static_cast<float>(in[i])); });
}

template <class Real>
void widen(const BFloat16* in, std::size_t count, Real* out) {
    Kokkos::parallel_for(
        "widen_bf16", Kokkos::RangePolicy<Execution>(0, count),
        KOKKOS_LAMBDA(std::size_t i) { out[i] = static_cast<Real>(to_float(in[i])); });
}

} // namespace

template <class Real>
struct Gemm<Real>::State {
    State(Arithmetic arithmetic, Rows rows)
        : arithmetic(arithmetic), few(rows == Rows::few && arithmetic != Arithmetic::exact) {}

    Arithmetic arithmetic;
    bool few;
    Products products;
    Vector<BFloat16> rounded; ///< the activation of a bf16 product
    Vector<Real> widened;     ///< a bf16 weight where products are in f32

    /// c = alpha op(a) op(b) + beta c, with bias[n] added to every row unless it is empty. The libraries have no double
    /// precision, so products in double are always exact ones.
    void multiply(const ProductShape& s, Real alpha, const Factor<Real>& a, const Factor<Real>& b, Real beta,
                  const Vector<Real>& bias, const Matrix<Real>& c) {
        const int c_row = static_cast<int>(c.stride(0));
        if constexpr (std::is_same_v<Real, float>) {
            if (few && !a.transpose && b.transpose)
                return few_rows_multiply(s.m, s.n, s.k, alpha, a.data, a.row, b.data, b.row, beta, bias.data(),
                                         c.data(), c_row);
            if (arithmetic != Arithmetic::exact)
                return products.multiply(s, alpha, a, b, beta, bias.data(), c.data(), c_row);
        }
        exact_multiply(a.transpose, b.transpose, s.m, s.n, s.k, alpha, a.data, a.row, b.data, b.row, beta, c.data(),
                       c_row);
        if (bias.extent(0) > 0) add_to_rows(bias, c);
    }

    /// c[m, n] (+)= x W^T or x W, + bias
    void apply(const Matrix<Real>& x, const Weight<Real>& weight, Transpose op, const Vector<Real>& bias,
               const Matrix<Real>& c, bool add) {
        const int m = static_cast<int>(x.extent(0));
        const int k = static_cast<int>(x.extent(1));
        const int n = static_cast<int>(c.extent(1));
        const bool transpose = op == Transpose::yes;
        if (k != (transpose ? weight.inputs() : weight.outputs()) ||
            n != (transpose ? weight.outputs() : weight.inputs()) || static_cast<int>(c.extent(0)) != m)
            fail("linear layer [{}, {}] applied to [{}, {}]: a bug, please report it", weight.outputs(),
                 weight.inputs(), m, k);
        if constexpr (std::is_same_v<Real, float>) {
            if (weight.is_half() && few && transpose)
                return few_rows_multiply(m, n, k, 1, x.data(), k, weight.half.data(), k, add ? 1.0F : 0.0F, bias.data(),
                                         c.data(), n);
            if (weight.is_half() && arithmetic == Arithmetic::bf16) {
                BFloat16* half = reserve(rounded, x.size(), "rounded_activation");
                round_to_bf16(x.data(), x.size(), half);
                const Kokkos::Profiling::ScopedRegion region("weight_products");
                return products.multiply({m, n, k}, {half, k, false}, {weight.half.data(), weight.inputs(), transpose},
                                         add, bias.data(), c.data());
            }
        }
        const Real* data = weight.full.data();
        if (weight.is_half()) {
            Real* full = reserve(widened, weight.half.size(), "widened_weight");
            widen(weight.half.data(), weight.half.size(), full);
            data = full;
        }
        const Kokkos::Profiling::ScopedRegion region("weight_products");
        multiply({m, n, k}, Real(1), {x.data(), k, false}, {data, weight.inputs(), transpose}, add ? Real(1) : Real(0),
                 bias, c);
    }
};

template <class Real>
Gemm<Real>::Gemm(Arithmetic arithmetic, Rows rows) : state_(std::make_unique<State>(arithmetic, rows)) {}

template <class Real>
Gemm<Real>::~Gemm() = default;

template <class Real>
void Gemm<Real>::multiply(Transpose a_op, Transpose b_op, Real alpha, const Matrix<Real>& a, const Matrix<Real>& b,
                          Real beta, const Matrix<Real>& c) {
    const Kokkos::Profiling::ScopedRegion region("array_products");
    const auto factor = [](const Matrix<Real>& matrix, Transpose op) {
        return Factor<Real>{matrix.data(), static_cast<int>(matrix.stride(0)), op == Transpose::yes};
    };
    state_->multiply(product_shape(a_op, b_op, a, b, c), alpha, factor(a, a_op), factor(b, b_op), beta, {}, c);
}

template <class Real>
void Gemm<Real>::linear(const Matrix<Real>& x, const Weight<Real>& weight, const Matrix<Real>& y, bool add) {
    state_->apply(x, weight, Transpose::yes, weight.bias, y, add);
}

template <class Real>
void Gemm<Real>::linear_backward(const Matrix<Real>& dy, const Weight<Real>& weight, const Matrix<Real>& dx, bool add) {
    state_->apply(dy, weight, Transpose::no, {}, dx, add);
}

Arithmetic measure_arithmetic() {
    if (!Products::has_bf16()) return Arithmetic::f32;
    constexpr int size = 512;
    const auto seconds = [](Arithmetic arithmetic) {
        Gemm<float> gemm(arithmetic);
        Weight<float> weight;
        weight.half = Matrix<BFloat16>("probe_weight", size, size);
        const Matrix<float> x("probe_x", size, size);
        const Matrix<float> y("probe_y", size, size);
        double best = 1e30;
        for (int repeat = 0; repeat < 5; ++repeat) {
            Kokkos::fence("products are measured one by one");
            const auto start = std::chrono::steady_clock::now();
            gemm.linear(x, weight, y);
            Kokkos::fence("the product is done");
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    return seconds(Arithmetic::bf16) < seconds(Arithmetic::f32) ? Arithmetic::bf16 : Arithmetic::f32;
}

template class Gemm<float>;
template class Gemm<double>;

} // namespace lolcats
