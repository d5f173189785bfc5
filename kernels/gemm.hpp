#pragma once
/// Matrix products. One object a model: it owns conversion buffers and compiled primitives, and is not thread-safe.
#include "kernels/scaled_float8.hpp"
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"

#include <initializer_list>
#include <memory>
#include <string>

namespace lolcats {

/// A frozen weight [outputs, inputs] in the type it is kept in: exactly one of the three arrays is allocated.
template <class Real>
struct Weight {
    Matrix<Real> full;
    Matrix<BFloat16> half;
    ScaledFloat8 float8; ///< a scale an output
    Vector<Real> bias;   ///< [outputs]; empty if there is none

    [[nodiscard]] bool is_half() const { return half.extent(0) > 0; }
    [[nodiscard]] bool is_float8() const { return float8.values.extent(0) > 0; }
    [[nodiscard]] int outputs() const { return extent(0); }
    [[nodiscard]] int inputs() const { return extent(1); }

private:
    [[nodiscard]] int extent(int i) const {
        return static_cast<int>(is_half() ? half.extent(i) : is_float8() ? float8.values.extent(i) : full.extent(i));
    }
};

enum class Transpose { no, yes };

/// How products are computed.
enum class Arithmetic {
    exact, ///< double sums in a fixed order (kernels/exact_gemm.hpp)
    f32,   ///< the library's products in float (kernels/products.hpp); weights of other types are widened
    bf16,  ///< products with bf16 and 8-bit weights in bf16 with float sums, all others as f32
    fp8    ///< x W^T with 8-bit weights: x is rounded to 8 bits, a scale a row, sums are in float; all others as bf16
           ///< where the processor has it, else as f32
};

/// What products with weights are made for. Those of `few` rows (kernels/few_rows.hpp) keep activations in float.
enum class RowCount { many, few };

/// Of f32 and bf16, what this processor does faster with bf16 weights, from a short measurement; f32 where it has no
/// bf16 instructions.
Arithmetic measure_arithmetic();

template <class Real>
class Gemm {
public:
    explicit Gemm(Arithmetic arithmetic, RowCount rows = RowCount::many);
    ~Gemm();
    Gemm(const Gemm&) = delete;
    Gemm& operator=(const Gemm&) = delete;

    /// C = alpha op(A) op(B) + beta C
    void multiply(Transpose a_op, Transpose b_op, Real alpha, const Matrix<Real>& a, const Matrix<Real>& b, Real beta,
                  const Matrix<Real>& c);

    /// y[n, outputs] = added + x[n, inputs] W^T + bias; `added` may be y itself, or have no rows for 0. y is not x.
    struct LinearTarget {
        const Weight<Real>& weight;
        const Matrix<Real>& y;
        Matrix<Real> added = {};
    };
    using LinearTargets = std::initializer_list<LinearTarget>;
    /// x is rounded once for all weights.
    void linear(const Matrix<Real>& x, LinearTargets targets);

    /// The same for an x that make(out) writes: `out` is x itself or, where all these products take bf16, memory for a
    /// Matrix<BFloat16> of its shape. x is scratch afterwards.
    template <class Make>
    void linear_of(const Matrix<Real>& x, const Make& make, LinearTargets targets) {
        if constexpr (std::is_same_v<Real, float>) {
            if (const auto half = half_input(x, targets); half.extent(0) > 0) {
                make(half);
                return linear_of_half(x, half, targets);
            }
        }
        make(x);
        linear(x, targets);
    }

    /// dx[n, inputs] = (add ? dx : 0) + dy[n, outputs] W
    void linear_backward(const Matrix<Real>& dy, const Weight<Real>& weight, const Matrix<Real>& dx, bool add = false);

private:
    /// Where products with these weights take x in bf16 from; no rows if one of them does not.
    Matrix<BFloat16> half_input(const Matrix<Real>& x, LinearTargets targets);
    /// linear() of an x that is in `half`.
    void linear_of_half(const Matrix<Real>& x, const Matrix<BFloat16>& half, LinearTargets targets);

    struct State;
    std::unique_ptr<State> state_;
};

} // namespace lolcats
