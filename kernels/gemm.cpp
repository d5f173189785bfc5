#include "kernels/gemm.hpp"

#include "kernels/exact_gemm.hpp"
#include "lolcats/error.hpp"

#include <chrono>
#include <map>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <vector>

namespace lolcats {

namespace {

using dnnl::memory;

bool processor_has_bf16() {
    const auto isa = dnnl::get_effective_cpu_isa();
    return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

/// c = op(a) op(b) with a and b in bf16 and c in f32, compiled once a shape.
class HalfProducts {
public:
    /// b is a weight [rows, columns]; with `transpose`, c[m, rows] = a b^T, else c[m, columns] = a b.
    void multiply(const BFloat16* a, const BFloat16* b, float* c, int m, int rows, int columns, bool transpose,
                  bool add) {
        auto& primitive = primitives_[{m, rows, columns, transpose, add}];
        const memory::dim n = transpose ? rows : columns;
        const memory::dim k = transpose ? columns : rows;
        const memory::dims b_strides = transpose ? memory::dims{1, columns} : memory::dims{columns, 1};
        const memory::desc a_shape({m, k}, memory::data_type::bf16, memory::dims{k, 1});
        const memory::desc b_shape({k, n}, memory::data_type::bf16, b_strides);
        const memory::desc c_shape({m, n}, memory::data_type::f32, memory::dims{n, 1});
        if (!primitive) primitive = compile(a_shape, b_shape, c_shape, add);
        primitive.execute(stream_, {{DNNL_ARG_SRC, memory(a_shape, engine_, const_cast<BFloat16*>(a))},
                                    {DNNL_ARG_WEIGHTS, memory(b_shape, engine_, const_cast<BFloat16*>(b))},
                                    {DNNL_ARG_DST, memory(c_shape, engine_, c)}});
        stream_.wait();
    }

private:
    dnnl::matmul compile(const memory::desc& a, const memory::desc& b, const memory::desc& c, bool add) {
        dnnl::primitive_attr attributes;
        if (add) {
            dnnl::post_ops sum;
            sum.append_sum(1.0F);
            attributes.set_post_ops(sum);
        }
        return dnnl::matmul({dnnl::matmul::desc(a, b, c), attributes, engine_});
    }

    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream_{engine_};
    std::map<std::tuple<int, int, int, bool, bool>, dnnl::matmul> primitives_;
};

struct ProductShape {
    int m, n, k;
};

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

void multiply_float(bool transpose_a, bool transpose_b, ProductShape s, float alpha, const float* a, int lda,
                    const float* b, int ldb, float beta, float* c, int ldc) {
    const auto letter = [](bool transpose) { return transpose ? 'T' : 'N'; };
    if (dnnl_sgemm(letter(transpose_a), letter(transpose_b), s.m, s.n, s.k, alpha, a, lda, b, ldb, beta, c, ldc) !=
        dnnl_success)
        fail("oneDNN refused a float product of {} x {} x {}", s.m, s.n, s.k);
}

/// oneDNN has no double precision, so products in double are always exact ones.
template <class Real>
void multiply_arrays(Arithmetic arithmetic, Transpose a_op, Transpose b_op, ProductShape s, Real alpha, const Real* a,
                     int lda, const Real* b, int ldb, Real beta, Real* c, int ldc) {
    const bool transpose_a = a_op == Transpose::yes;
    const bool transpose_b = b_op == Transpose::yes;
    if constexpr (std::is_same_v<Real, float>) {
        if (arithmetic != Arithmetic::exact)
            return multiply_float(transpose_a, transpose_b, s, alpha, a, lda, b, ldb, beta, c, ldc);
    }
    exact_multiply(transpose_a, transpose_b, s.m, s.n, s.k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void round_to_bf16(const float* in, std::size_t count, BFloat16* out) {
    Kokkos::parallel_for("round_to_bf16", Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, count),
                         [=](std::size_t i) { out[i] = to_bfloat16(in[i]); });
}

template <class Real>
void widen(const Matrix<BFloat16>& in, Real* out) {
    const BFloat16* data = in.data();
    Kokkos::parallel_for("widen_bf16", Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, in.size()),
                         [=](std::size_t i) { out[i] = static_cast<Real>(to_float(data[i])); });
}

} // namespace

template <class Real>
struct Gemm<Real>::State {
    explicit State(Arithmetic arithmetic) : arithmetic(arithmetic) {}

    Arithmetic arithmetic;
    HalfProducts products;
    std::vector<BFloat16> rounded; ///< the activation of a bf16 product
    std::vector<Real> widened;     ///< a bf16 weight where products are in f32

    /// c[m, n] (+)= x W^T or x W
    void apply(const Matrix<Real>& x, const Weight<Real>& weight, Transpose op, const Matrix<Real>& c, bool add) {
        const int m = static_cast<int>(x.extent(0));
        const int k = static_cast<int>(x.extent(1));
        const int n = static_cast<int>(c.extent(1));
        const int expected_k = op == Transpose::yes ? weight.inputs() : weight.outputs();
        const int expected_n = op == Transpose::yes ? weight.outputs() : weight.inputs();
        if (k != expected_k || n != expected_n || static_cast<int>(c.extent(0)) != m)
            fail("linear layer [{}, {}] applied to [{}, {}]: a bug, please report it", weight.outputs(),
                 weight.inputs(), m, k);
        if constexpr (std::is_same_v<Real, float>) {
            if (weight.is_half() && arithmetic == Arithmetic::bf16) {
                rounded.resize(x.size());
                round_to_bf16(x.data(), x.size(), rounded.data());
                products.multiply(rounded.data(), weight.half.data(), c.data(), m, weight.outputs(), weight.inputs(),
                                  op == Transpose::yes, add);
                return;
            }
        }
        const Real* data = weight.full.data();
        if (weight.is_half()) {
            widened.resize(weight.half.size());
            widen(weight.half, widened.data());
            data = widened.data();
        }
        multiply_arrays(arithmetic, Transpose::no, op, {m, n, k}, Real(1), x.data(), k, data, weight.inputs(),
                        add ? Real(1) : Real(0), c.data(), n);
    }
};

template <class Real>
Gemm<Real>::Gemm(Arithmetic arithmetic) : state_(std::make_unique<State>(arithmetic)) {}

template <class Real>
Gemm<Real>::~Gemm() = default;

template <class Real>
void Gemm<Real>::multiply(Transpose a_op, Transpose b_op, Real alpha, const Matrix<Real>& a, const Matrix<Real>& b,
                          Real beta, const Matrix<Real>& c) {
    multiply_arrays(state_->arithmetic, a_op, b_op, product_shape(a_op, b_op, a, b, c), alpha, a.data(),
                    static_cast<int>(a.stride(0)), b.data(), static_cast<int>(b.stride(0)), beta, c.data(),
                    static_cast<int>(c.stride(0)));
}

template <class Real>
void Gemm<Real>::linear(const Matrix<Real>& x, const Weight<Real>& weight, const Matrix<Real>& y, bool add) {
    state_->apply(x, weight, Transpose::yes, y, add);
    if (weight.bias.extent(0) == 0) return;
    const auto bias = weight.bias;
    const int columns = static_cast<int>(y.extent(1));
    Kokkos::parallel_for(
        "add_bias", Kokkos::RangePolicy<Execution>(0, y.extent(0)), KOKKOS_LAMBDA(int row) {
            for (int j = 0; j < columns; ++j) y(row, j) += bias(j);
        });
}

template <class Real>
void Gemm<Real>::linear_backward(const Matrix<Real>& dy, const Weight<Real>& weight, const Matrix<Real>& dx, bool add) {
    state_->apply(dy, weight, Transpose::no, dx, add);
}

Arithmetic measure_arithmetic() {
    if (!processor_has_bf16()) return Arithmetic::f32;
    constexpr int size = 512;
    const auto seconds = [](Arithmetic arithmetic) {
        Gemm<float> gemm(arithmetic);
        Weight<float> weight;
        weight.half = Matrix<BFloat16>("probe_weight", size, size);
        const Matrix<float> x("probe_x", size, size);
        const Matrix<float> y("probe_y", size, size);
        double best = 1e30;
        for (int repeat = 0; repeat < 5; ++repeat) {
            const auto start = std::chrono::steady_clock::now();
            gemm.linear(x, weight, y);
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    return seconds(Arithmetic::bf16) < seconds(Arithmetic::f32) ? Arithmetic::bf16 : Arithmetic::f32;
}

template class Gemm<float>;
template class Gemm<double>;

} // namespace lolcats
