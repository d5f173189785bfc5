#include "tools/bench/block/peaks.hpp"

#include "kernels/products.hpp"
#include "tools/bench/block/random_weights.hpp"
#include "tools/bench/block/stopwatch.hpp"

#include <algorithm>

namespace lolcats::bench {

namespace {

constexpr double measured_seconds = 0.2;

/// Seconds of one call, the mean over calls that take `measured_seconds` together, after two that do not count.
template <class Body>
double mean_seconds(const Body& body) {
    body();
    const double once = std::max(1e-6, seconds(body));
    const int calls = std::clamp(static_cast<int>(measured_seconds / once), 1, 1000);
    return seconds([&] {
               for (int i = 0; i < calls; ++i) body();
           }) /
           calls;
}

double product_seconds(Arithmetic arithmetic, int m, int n, int k) {
    const Matrix<float> c(uninitialized("peak_c"), m, n);
    if (arithmetic == Arithmetic::bf16) {
        const Matrix<BFloat16> a(uninitialized("peak_a"), m, k);
        const Matrix<BFloat16> b(uninitialized("peak_b"), n, k);
        fill(a, 1, 1);
        fill(b, 1, 2);
        Products products;
        return mean_seconds([&] {
            products.multiply({m, n, k}, {a.data(), k, false}, {b.data(), k, true}, false, nullptr, c.data());
        });
    }
    const Matrix<float> a(uninitialized("peak_a"), m, k);
    Weight<float> weight;
    weight.full = Matrix<float>(uninitialized("peak_b"), n, k);
    fill(a, 1, 1);
    fill(weight.full, 1, 2);
    Gemm<float> gemm(arithmetic);
    return mean_seconds([&] { gemm.linear(a, weight, c); });
}

double copy_rate() {
    const std::size_t size = runs_on_host ? std::size_t{1} << 26 : std::size_t{1} << 28;
    const Vector<float> from("copied_from", size);
    const Vector<float> to("copied_to", size);
    return 2.0 * 4.0 * static_cast<double>(size) / mean_seconds([&] { Kokkos::deep_copy(Execution(), to, from); });
}

} // namespace

Peaks measure_peaks(const Settings& settings, Arithmetic arithmetic) {
    const ModelConfig& m = settings.model;
    const int n = settings.options.micro_batch * settings.length();
    Peaks peaks;
    peaks.products = {{"gate, up", n, m.intermediate_size, m.hidden_size, 0},
                      {"down", n, m.hidden_size, m.intermediate_size, 0},
                      {"q", n, m.query_size(), m.hidden_size, 0},
                      {"o", n, m.hidden_size, m.query_size(), 0},
                      {"k, v", n, m.kv_size(), m.hidden_size, 0},
                      {"square", settings.square, settings.square, settings.square, 0}};
    for (ProductRate& p : peaks.products) {
        p.flops = 2.0 * p.m * p.n * p.k / product_seconds(arithmetic, p.m, p.n, p.k);
        peaks.flops = std::max(peaks.flops, p.flops);
    }
    peaks.copy = copy_rate();
    return peaks;
}

} // namespace lolcats::bench
