#include "kernels/gemm.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/exact_gemm.hpp"
#include "kernels/few_rows.hpp"
#include "kernels/products.hpp"
#include "kernels/rounding.hpp"
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

template <class Real>
void round_to_bf16(const Real* in, std::size_t count, BFloat16* out) {
    Kokkos::parallel_for(
        "round_to_bf16", Kokkos::RangePolicy<Execution>(0, count),
        KOKKOS_LAMBDA(std::size_t i) { out[i] = rounded_to<BFloat16>(in[i]); });
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
    Vector<Float8> float8_values; ///< the activation of an 8-bit product, and its scales
    Vector<float> float8_scales;
    Vector<BFloat16> rounded;      ///< that of a bf16 one
    Vector<BFloat16> widened_half; ///< an 8-bit weight where products are in bf16
    Vector<Real> widened;          ///< a bf16 or 8-bit weight where they are in f32

    bool float8_is_current = false; ///< float8_values hold the activation of this call
    bool half_is_current = false;   ///< `rounded` does

    void forget_rounded() { float8_is_current = half_is_current = false; }

    [[nodiscard]] bool in_bf16() const {
        return arithmetic == Arithmetic::bf16 || (arithmetic == Arithmetic::fp8 && Products::has_bf16());
    }

    /// c = alpha op(a) op(b) + beta c, with bias[n] added to every row unless it is empty. The libraries have no double
    /// precision, so products in double are always exact ones.
    void multiply(const ProductShape& s, Real alpha, const Factor<Real>& a, const Factor<Real>& b, Real beta,
                  const Vector<Real>& bias, const Matrix<Real>& c) {
        const int c_row = static_cast<int>(c.stride(0));
        if constexpr (std::is_same_v<Real, float>) {
            if (few && !a.transpose && b.transpose)
                return few_rows_multiply(s.m, s.n, s.k, alpha, a.data, a.row, b.data, b.row, nullptr, beta, bias.data(),
                                         c.data(), c_row);
            if (arithmetic != Arithmetic::exact)
                return products.multiply(s, alpha, a, b, beta, bias.data(), c.data(), c_row);
        }
        exact_multiply(a.transpose, b.transpose, s.m, s.n, s.k, alpha, a.data, a.row, b.data, b.row, beta, c.data(),
                       c_row);
        if (bias.extent(0) > 0) add_to_rows(bias, c);
    }

    /// Whether x W^T or x W is a product in bf16.
    [[nodiscard]] bool takes_half(const ProductShape& shape, const Weight<Real>& weight, bool transpose) const {
        if (!in_bf16() || !(weight.is_half() || weight.is_float8()) || (few && transpose)) return false;
        return !takes_float8(shape, weight, transpose);
    }

    /// c[m, n] = added + x W^T or x W, + bias
    void apply(const Matrix<Real>& x, const Weight<Real>& weight, Transpose op, const Vector<Real>& bias,
               const Matrix<Real>& added, const Matrix<Real>& c) {
        const int m = static_cast<int>(x.extent(0));
        const int k = static_cast<int>(x.extent(1));
        const int n = static_cast<int>(c.extent(1));
        const bool transpose = op == Transpose::yes;
        if (k != (transpose ? weight.inputs() : weight.outputs()) ||
            n != (transpose ? weight.outputs() : weight.inputs()) || static_cast<int>(c.extent(0)) != m)
            fail("linear layer [{}, {}] applied to [{}, {}]: a bug, please report it", weight.outputs(),
                 weight.inputs(), m, k);
        const ProductShape shape{m, n, k};
        if constexpr (std::is_same_v<Real, float>) {
            if (takes_half(shape, weight, transpose))
                return apply_in_bf16(shape, x, {half_data(weight), weight.inputs(), transpose}, bias, added, c);
            if (!few && takes_float8(shape, weight, transpose))
                return apply_in_float8(shape, x, weight.float8, bias, added, c);
        }
        const bool add = start_with(added, c);
        if constexpr (std::is_same_v<Real, float>) {
            if (few && transpose && weight.is_half())
                return apply_to_few(shape, x, weight.half.data(), nullptr, bias, c, add);
            if (few && transpose && weight.is_float8())
                return apply_to_few(shape, x, weight.float8.values.data(), weight.float8.scales.data(), bias, c, add);
        }
        const Factor<Real> factor{full_data(weight), weight.inputs(), transpose};
        const Kokkos::Profiling::ScopedRegion region("weight_products");
        multiply(shape, Real(1), {x.data(), k, false}, factor, add ? Real(1) : Real(0), bias, c);
    }

    /// Memory for an activation [m, k] in bf16, kept from one use to the next.
    Matrix<BFloat16> half_rows(std::size_t m, std::size_t k) {
        return Matrix<BFloat16>(reserve(rounded, m * k, "rounded_activation"), m, k);
    }

private:
    [[nodiscard]] bool takes_float8(const ProductShape& shape, const Weight<Real>& weight, bool transpose) const {
        return arithmetic == Arithmetic::fp8 && transpose && weight.is_float8() && Products::has_float8(shape);
    }

    /// Where products add to what is in c: whether anything is added.
    static bool start_with(const Matrix<Real>& added, const Matrix<Real>& c) {
        if (added.extent(0) > 0 && added.data() != c.data()) Kokkos::deep_copy(Execution(), c, added);
        return added.extent(0) > 0;
    }

    template <class T>
    static void apply_to_few(const ProductShape& s, const Matrix<float>& x, const T* w, const float* scales,
                             const Vector<float>& bias, const Matrix<float>& c, bool add) {
        few_rows_multiply(s.m, s.n, s.k, 1, x.data(), s.k, w, s.k, scales, add ? 1.0F : 0.0F, bias.data(), c.data(),
                          s.n);
    }

    void apply_in_float8(const ProductShape& s, const Matrix<float>& x, const ScaledFloat8& weight,
                         const Vector<float>& bias, const Matrix<float>& added, const Matrix<float>& c) {
        const ScaledFloat8 activation = rows_for(s);
        if (!float8_is_current) round_to_float8(x, activation);
        float8_is_current = true;
        {
            const Kokkos::Profiling::ScopedRegion region("weight_products");
            products.multiply(s, {activation.values.data(), activation.scales.data()},
                              {weight.values.data(), weight.scales.data()}, added.data(), c.data());
        }
        if (bias.extent(0) > 0) add_to_rows(bias, c);
    }

    void apply_in_bf16(const ProductShape& s, const Matrix<float>& x, const Factor<BFloat16>& weight,
                       const Vector<float>& bias, const Matrix<float>& added, const Matrix<float>& c) {
        const auto half = half_rows(s.m, s.k);
        if (!half_is_current) round_to_bf16(x.data(), x.size(), half.data());
        half_is_current = true;
        const Kokkos::Profiling::ScopedRegion region("weight_products");
        products.multiply(s, {half.data(), s.k, false}, weight, added.data(), bias.data(), c.data());
    }

    /// Memory for an activation [m, k], kept from one use to the next.
    ScaledFloat8 rows_for(const ProductShape& s) {
        const std::size_t size = static_cast<std::size_t>(s.m) * s.k;
        return {Matrix<Float8>(reserve(float8_values, size, "rounded_activation"), s.m, s.k),
                Vector<float>(reserve(float8_scales, s.m, "activation_scales"), s.m)};
    }

    const BFloat16* half_data(const Weight<float>& weight) {
        if (weight.is_half()) return weight.half.data();
        BFloat16* half = reserve(widened_half, weight.float8.values.size(), "widened_weight");
        widen(weight.float8, half);
        return half;
    }

    const Real* full_data(const Weight<Real>& weight) {
        if (weight.is_half()) {
            Real* full = reserve(widened, weight.half.size(), "widened_weight");
            widen(weight.half.data(), weight.half.size(), full);
            return full;
        }
        if (weight.is_float8()) {
            Real* full = reserve(widened, weight.float8.values.size(), "widened_weight");
            widen(weight.float8, full);
            return full;
        }
        return weight.full.data();
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
void Gemm<Real>::linear(const Matrix<Real>& x, Projections projections) {
    state_->forget_rounded();
    for (const auto& [weight, y, added] : projections) state_->apply(x, weight, Transpose::yes, weight.bias, added, y);
}

template <class Real>
Matrix<BFloat16> Gemm<Real>::half_input(const Matrix<Real>& x, Projections projections) {
    for (const auto& [weight, y, added] : projections) {
        const ProductShape shape{static_cast<int>(x.extent(0)), weight.outputs(), weight.inputs()};
        if (!state_->takes_half(shape, weight, true)) return {};
    }
    return state_->half_rows(x.extent(0), x.extent(1));
}

template <class Real>
void Gemm<Real>::multiply_half(const Matrix<Real>& x, Projections projections) {
    state_->float8_is_current = false;
    state_->half_is_current = true;
    for (const auto& [weight, y, added] : projections) state_->apply(x, weight, Transpose::yes, weight.bias, added, y);
}

template <class Real>
void Gemm<Real>::linear_backward(const Matrix<Real>& dy, const Weight<Real>& weight, const Matrix<Real>& dx, bool add) {
    state_->forget_rounded();
    state_->apply(dy, weight, Transpose::no, {}, add ? dx : Matrix<Real>(), dx);
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
            gemm.linear(x, {{weight, y}});
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
