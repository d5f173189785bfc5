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

/// Of x W^T, or x W, into c.
template <class Real>
ProductShape linear_shape(const Matrix<Real>& x, const Weight<Real>& weight, bool transpose, const Matrix<Real>& c) {
    const ProductShape s{static_cast<int>(x.extent(0)), static_cast<int>(c.extent(1)), static_cast<int>(x.extent(1))};
    if (s.k != (transpose ? weight.inputs() : weight.outputs()) ||
        s.n != (transpose ? weight.outputs() : weight.inputs()) || static_cast<int>(c.extent(0)) != s.m)
        fail("linear layer [{}, {}] applied to [{}, {}]: a bug, please report it", weight.outputs(), weight.inputs(),
             s.m, s.k);
    return s;
}

/// What enters the products of one call. A rounded form has no rows until a product takes it.
template <class Real>
struct Activation {
    const Matrix<Real>& x;
    Matrix<BFloat16> half = {};
    ScaledFloat8 float8 = {};
};

} // namespace

template <class Real>
struct Gemm<Real>::State {
    State(Arithmetic arithmetic, RowCount rows)
        : arithmetic(arithmetic), few(rows == RowCount::few && arithmetic != Arithmetic::exact) {}

    /// How a product with a weight is computed.
    enum class Path {
        full,   ///< in Real; a bf16 or 8-bit weight is widened
        half,   ///< in bf16; an 8-bit weight is widened to that
        float8, ///< in 8 bits
        few     ///< by few_rows_multiply, which reads the weight as it is kept
    };

    Arithmetic arithmetic;
    bool few;
    Products products;
    Vector<Float8> float8_values; ///< the activation of an 8-bit product, and its scales
    Vector<float> float8_scales;
    Vector<BFloat16> rounded;      ///< that of a bf16 one
    Vector<BFloat16> widened_half; ///< an 8-bit weight where products are in bf16
    Vector<Real> widened;          ///< a bf16 or 8-bit weight where they are in f32

    /// Of x W^T or x W. In double all are `full`.
    [[nodiscard]] Path path_of(const ProductShape& shape, const Weight<Real>& weight, bool transpose) const {
        if (!std::is_same_v<Real, float>) return Path::full;
        if (few && transpose) return Path::few;
        if (arithmetic == Arithmetic::fp8 && transpose && weight.is_float8() && Products::has_float8(shape))
            return Path::float8;
        const bool in_bf16 = arithmetic == Arithmetic::bf16 || (arithmetic == Arithmetic::fp8 && Products::has_bf16());
        return in_bf16 && (weight.is_half() || weight.is_float8()) ? Path::half : Path::full;
    }

    /// c = alpha op(a) op(b) + beta c, with bias[n] added to every row unless it is empty. The libraries have no double
    /// precision, so products in double are always exact ones.
    void multiply(const ProductShape& s, Real alpha, const Factor<Real>& a, const Factor<Real>& b, Real beta,
                  const Vector<Real>& bias, const Matrix<Real>& c) {
        const int c_row = static_cast<int>(c.stride(0));
        if constexpr (std::is_same_v<Real, float>) {
            if (few && !a.transpose && b.transpose)
                return few_rows_multiply(FewRowsProduct<float>{.shape = s,
                                                               .alpha = alpha,
                                                               .x = a.data,
                                                               .x_row = a.row,
                                                               .w = b.data,
                                                               .w_row = b.row,
                                                               .w_scales = nullptr,
                                                               .beta = beta,
                                                               .bias = bias.data(),
                                                               .y = c.data(),
                                                               .y_row = c_row});
            if (arithmetic != Arithmetic::exact)
                return products.multiply(s, alpha, a, b, beta, bias.data(), c.data(), c_row);
        }
        exact_multiply(s, alpha, a, b, beta, c.data(), c_row);
        if (bias.extent(0) > 0) add_to_rows(bias, c);
    }

    /// c[m, n] = added + x W^T or x W, + bias
    void apply(Activation<Real>& in, const Weight<Real>& weight, Transpose op, const Vector<Real>& bias,
               const Matrix<Real>& added, const Matrix<Real>& c) {
        const bool transpose = op == Transpose::yes;
        const ProductShape shape = linear_shape(in.x, weight, transpose, c);
        if constexpr (std::is_same_v<Real, float>) {
            switch (path_of(shape, weight, transpose)) {
            case Path::half:
                return apply_in_half(shape, in, {half_data(weight), weight.inputs(), transpose}, bias, added, c);
            case Path::float8:
                return apply_in_float8(shape, in, weight.float8, bias, added, c);
            case Path::few:
                return apply_to_few(shape, in.x, weight, bias, added, c);
            case Path::full:
                break;
            }
        }
        const bool add = start_with(added, c);
        const Factor<Real> factor{full_data(weight), weight.inputs(), transpose};
        const Kokkos::Profiling::ScopedRegion region("weight_products");
        multiply(shape, Real(1), {in.x.data(), shape.k, false}, factor, add ? Real(1) : Real(0), bias, c);
    }

    /// y = added + x W^T + bias for all targets.
    void linear(Activation<Real> in, LinearTargets targets) {
        for (const auto& [weight, y, added] : targets) apply(in, weight, Transpose::yes, weight.bias, added, y);
    }

    /// Memory for an activation [m, k] in bf16, kept from one use to the next.
    Matrix<BFloat16> half_rows(std::size_t m, std::size_t k) {
        return Matrix<BFloat16>(reserve(rounded, m * k, "rounded_activation"), m, k);
    }

private:
    void apply_in_half(const ProductShape& s, Activation<float>& in, const Factor<BFloat16>& weight,
                       const Vector<float>& bias, const Matrix<float>& added, const Matrix<float>& c) {
        if (in.half.extent(0) == 0) {
            in.half = half_rows(s.m, s.k);
            narrow(in.x.data(), in.x.size(), in.half.data());
        }
        const Kokkos::Profiling::ScopedRegion region("weight_products");
        products.multiply(s, {in.half.data(), s.k, false}, weight, added.data(), bias.data(), c.data());
    }

    void apply_in_float8(const ProductShape& s, Activation<float>& in, const ScaledFloat8& weight,
                         const Vector<float>& bias, const Matrix<float>& added, const Matrix<float>& c) {
        if (in.float8.values.extent(0) == 0) {
            in.float8 = float8_rows(s.m, s.k);
            round_to_float8(in.x, in.float8);
        }
        {
            const Kokkos::Profiling::ScopedRegion region("weight_products");
            products.multiply(s, {in.float8.values.data(), in.float8.scales.data()},
                              {weight.values.data(), weight.scales.data()}, added.data(), c.data());
        }
        if (bias.extent(0) > 0) add_to_rows(bias, c);
    }

    static void apply_to_few(const ProductShape& s, const Matrix<float>& x, const Weight<float>& weight,
                             const Vector<float>& bias, const Matrix<float>& added, const Matrix<float>& c) {
        const float beta = start_with(added, c) ? 1 : 0;
        const Kokkos::Profiling::ScopedRegion region("weight_products");
        const auto multiply = [&]<class T>(const T* w, const float* scales) {
            few_rows_multiply(FewRowsProduct<T>{.shape = s,
                                                .alpha = 1,
                                                .x = x.data(),
                                                .x_row = s.k,
                                                .w = w,
                                                .w_row = s.k,
                                                .w_scales = scales,
                                                .beta = beta,
                                                .bias = bias.data(),
                                                .y = c.data(),
                                                .y_row = s.n});
        };
        if (weight.is_half())
            multiply(weight.half.data(), nullptr);
        else if (weight.is_float8())
            multiply(weight.float8.values.data(), weight.float8.scales.data());
        else
            multiply(weight.full.data(), nullptr);
    }

    /// Memory for an activation [m, k] in 8 bits, likewise.
    ScaledFloat8 float8_rows(std::size_t m, std::size_t k) {
        return {Matrix<Float8>(reserve(float8_values, m * k, "rounded_activation"), m, k),
                Vector<float>(reserve(float8_scales, m, "activation_scales"), m)};
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
Gemm<Real>::Gemm(Arithmetic arithmetic, RowCount rows) : state_(std::make_unique<State>(arithmetic, rows)) {}

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
void Gemm<Real>::linear(const Matrix<Real>& x, LinearTargets targets) {
    state_->linear({x}, targets);
}

template <class Real>
Matrix<BFloat16> Gemm<Real>::half_input(const Matrix<Real>& x, LinearTargets targets) {
    for (const auto& [weight, y, added] : targets) {
        const ProductShape shape{static_cast<int>(x.extent(0)), weight.outputs(), weight.inputs()};
        if (state_->path_of(shape, weight, true) != State::Path::half) return {};
    }
    return state_->half_rows(x.extent(0), x.extent(1));
}

template <class Real>
void Gemm<Real>::linear_of_half(const Matrix<Real>& x, const Matrix<BFloat16>& half, LinearTargets targets) {
    state_->linear({x, half}, targets);
}

template <class Real>
void Gemm<Real>::linear_backward(const Matrix<Real>& dy, const Weight<Real>& weight, const Matrix<Real>& dx, bool add) {
    Activation<Real> in{dy};
    state_->apply(in, weight, Transpose::no, {}, add ? dx : Matrix<Real>(), dx);
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
