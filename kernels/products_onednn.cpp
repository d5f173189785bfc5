#include "kernels/elementwise.hpp"
#include "kernels/products.hpp"
#include "kernels/scaled_float8.hpp"
#include "lolcats/error.hpp"

#include <map>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

namespace lolcats {

namespace {

using dnnl::memory;

/// The array [m, n] at c; without rows if that is null.
Matrix<float> dense(const ProductShape& s, const float* c) {
    return c == nullptr ? Matrix<float>() : Matrix<float>(const_cast<float*>(c), s.m, s.n);
}

void add_bias(const ProductShape& s, const float* bias, float* c, int c_row) {
    if (bias == nullptr) return;
    if (c_row != s.n) fail("a bias added to rows {} apart, {} long: a bug, please report it", c_row, s.n);
    add_to_rows(Vector<float>(const_cast<float*>(bias), s.n), dense(s, c));
}

} // namespace

/// bf16 products, compiled once a shape, and the factors of 8-bit ones.
struct Products::State {
    dnnl::matmul compile(const memory::desc& a, const memory::desc& b, const memory::desc& c, bool add) const {
        dnnl::primitive_attr attributes;
        if (add) {
            dnnl::post_ops sum;
            sum.append_sum(1.0F);
            attributes.set_post_ops(sum);
        }
        try {
            return dnnl::matmul({dnnl::matmul::desc(a, b, c), attributes, engine});
        } catch (const dnnl::error& error) {
            if (error.status != dnnl_unimplemented) throw;
            fail("oneDNN has no bf16 products for this processor");
        }
    }

    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    std::map<std::tuple<int, int, int, bool, bool, bool>, dnnl::matmul> primitives;
    Vector<float> widened_a, widened_b;
};

Products::Products(AlgorithmChoice) : state_(std::make_unique<State>()) {}
Products::~Products() = default;

bool Products::has_bf16() {
    const auto isa = dnnl::get_effective_cpu_isa();
    return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

void Products::multiply(const ProductShape& s, float alpha, const Factor<float>& a, const Factor<float>& b, float beta,
                        const float* bias, float* c, int c_row) {
    const auto letter = [](bool transpose) { return transpose ? 'T' : 'N'; };
    if (dnnl_sgemm(letter(a.transpose), letter(b.transpose), s.m, s.n, s.k, alpha, a.data, a.row, b.data, b.row, beta,
                   c, c_row) != dnnl_success)
        fail("oneDNN refused a float product of {} x {} x {}", s.m, s.n, s.k);
    add_bias(s, bias, c, c_row);
}

void Products::multiply(const ProductShape& s, const Factor<BFloat16>& a, const Factor<BFloat16>& b, const float* added,
                        const float* bias, float* c) {
    const bool add = start_with(dense(s, added), dense(s, c));
    auto& primitive = state_->primitives[{s.m, s.n, s.k, a.transpose, b.transpose, add}];
    const auto strides = [](const Factor<BFloat16>& factor) {
        return factor.transpose ? memory::dims{1, factor.row} : memory::dims{factor.row, 1};
    };
    const memory::desc a_shape({s.m, s.k}, memory::data_type::bf16, strides(a));
    const memory::desc b_shape({s.k, s.n}, memory::data_type::bf16, strides(b));
    const memory::desc c_shape({s.m, s.n}, memory::data_type::f32, memory::dims{s.n, 1});
    if (!primitive) primitive = state_->compile(a_shape, b_shape, c_shape, add);
    primitive.execute(state_->stream,
                      {{DNNL_ARG_SRC, memory(a_shape, state_->engine, const_cast<BFloat16*>(a.data))},
                       {DNNL_ARG_WEIGHTS, memory(b_shape, state_->engine, const_cast<BFloat16*>(b.data))},
                       {DNNL_ARG_DST, memory(c_shape, state_->engine, c)}});
    state_->stream.wait();
    add_bias(s, bias, c, s.n);
}

std::size_t Products::workspace_bytes() {
    return 0;
}

bool Products::has_float8(const ProductShape&) {
    return true;
}

bool Products::widens_float8() {
    return true;
}

void Products::multiply(const ProductShape& s, const ScaledFactor& a, const ScaledFactor& b, const float* added,
                        float* c) {
    const auto widened = [&](const ScaledFactor& factor, int rows, Vector<float>& buffer) {
        float* out = reserve(buffer, static_cast<std::size_t>(rows) * s.k, "widened_factor");
        widen({Matrix<Float8>(const_cast<Float8*>(factor.data), rows, s.k),
               Vector<float>(const_cast<float*>(factor.scales), rows)},
              out);
        return out;
    };
    const float* wide_a = widened(a, s.m, state_->widened_a);
    const float* wide_b = widened(b, s.n, state_->widened_b);
    const bool add = start_with(dense(s, added), dense(s, c));
    multiply(s, 1, {wide_a, s.k, false}, {wide_b, s.k, true}, add ? 1.0F : 0.0F, nullptr, c, s.n);
}

} // namespace lolcats
