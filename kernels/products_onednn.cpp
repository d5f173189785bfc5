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

void add_bias(const ProductShape& s, const float* bias, float* c, int c_row) {
    if (bias == nullptr) return;
    if (c_row != s.n) fail("a bias added to rows {} apart, {} long: a bug, please report it", c_row, s.n);
    add_to_rows(Vector<float>(const_cast<float*>(bias), s.n), Matrix<float>(c, s.m, s.n));
}

/// oneDNN adds to what is in c.
void start_with(const float* added, std::size_t size, float* c) {
    if (added == nullptr || added == c) return;
    Kokkos::deep_copy(Execution(), Vector<float>(c, size), Vector<const float>(added, size));
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
            fail("--gemm bf16: oneDNN has no bf16 products for this processor; use --gemm f32 or auto");
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
    const bool add = added != nullptr;
    auto& primitive = state_->primitives[{s.m, s.n, s.k, a.transpose, b.transpose, add}];
    const auto strides = [](const Factor<BFloat16>& factor) {
        return factor.transpose ? memory::dims{1, factor.row} : memory::dims{factor.row, 1};
    };
    const memory::desc a_shape({s.m, s.k}, memory::data_type::bf16, strides(a));
    const memory::desc b_shape({s.k, s.n}, memory::data_type::bf16, strides(b));
    const memory::desc c_shape({s.m, s.n}, memory::data_type::f32, memory::dims{s.n, 1});
    if (!primitive) primitive = state_->compile(a_shape, b_shape, c_shape, add);
    start_with(added, static_cast<std::size_t>(s.m) * s.n, c);
    primitive.execute(state_->stream,
                      {{DNNL_ARG_SRC, memory(a_shape, state_->engine, const_cast<BFloat16*>(a.data))},
                       {DNNL_ARG_WEIGHTS, memory(b_shape, state_->engine, const_cast<BFloat16*>(b.data))},
                       {DNNL_ARG_DST, memory(c_shape, state_->engine, c)}});
    state_->stream.wait();
    add_bias(s, bias, c, s.n);
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
    start_with(added, static_cast<std::size_t>(s.m) * s.n, c);
    multiply(s, 1, {wide_a, s.k, false}, {wide_b, s.k, true}, added == nullptr ? 0.0F : 1.0F, nullptr, c, s.n);
}

} // namespace lolcats
