#include "tools/bench/block/peaks.hpp"

#include "kernels/products.hpp"
#include "kernels/scaled_float8.hpp"
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

template <class T>
Matrix<T> random_factor(int rows, int columns, std::uint64_t stream) {
    const Matrix<T> factor(uninitialized("peak_factor"), rows, columns);
    fill(factor, 1, stream);
    return factor;
}

ScaledFloat8 random_float8_factor(int rows, int columns, std::uint64_t stream) {
    const ScaledFloat8 factor("peak_factor", rows, columns);
    round_to_float8(random_factor<float>(rows, columns, stream), factor);
    Kokkos::fence("the numbers are read");
    return factor;
}

/// c[m, n] of random factors, by the kind of product that weights go into.
double bf16_seconds(const ProductShape& s, AlgorithmChoice choice, float* c) {
    const auto a = random_factor<BFloat16>(s.m, s.k, 1);
    const auto b = random_factor<BFloat16>(s.n, s.k, 2);
    Products products(choice);
    return mean_seconds([&] {
        products.multiply(s, {a.data(), s.k, false}, {b.data(), s.k, true}, nullptr, nullptr, c);
    });
}

double float8_seconds(const ProductShape& s, AlgorithmChoice choice, float* c) {
    const auto a = random_float8_factor(s.m, s.k, 1);
    const auto b = random_float8_factor(s.n, s.k, 2);
    Products products(choice);
    return mean_seconds([&] {
        products.multiply(s, {a.values.data(), a.scales.data()}, {b.values.data(), b.scales.data()}, nullptr, c);
    });
}

double f32_seconds(const ProductShape& s, AlgorithmChoice choice, float* c) {
    const auto a = random_factor<float>(s.m, s.k, 1);
    const auto b = random_factor<float>(s.n, s.k, 2);
    Products products(choice);
    return mean_seconds([&] {
        products.multiply(s, 1, {a.data(), s.k, false}, {b.data(), s.k, true}, 0, nullptr, c, s.n);
    });
}

double product_seconds(Arithmetic arithmetic, const ProductShape& s, AlgorithmChoice choice) {
    const Matrix<float> c(uninitialized("peak_c"), s.m, s.n);
    if (arithmetic == Arithmetic::bf16) return bf16_seconds(s, choice, c.data());
    if (arithmetic == Arithmetic::fp8) return float8_seconds(s, choice, c.data());
    return f32_seconds(s, choice, c.data());
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
    peaks.products = {{"gate, up", n, m.intermediate_size, m.hidden_size},
                      {"down", n, m.hidden_size, m.intermediate_size},
                      {"q", n, m.query_size(), m.hidden_size},
                      {"o", n, m.hidden_size, m.query_size()},
                      {"k, v", n, m.kv_size(), m.hidden_size},
                      {"square", settings.square, settings.square, settings.square}};
    for (ProductRate& p : peaks.products) {
        const auto rate = [&](AlgorithmChoice choice) {
            return 2.0 * p.m * p.n * p.k / product_seconds(arithmetic, {p.m, p.n, p.k}, choice);
        };
        p.first_flops = rate(AlgorithmChoice::first);
        p.flops = runs_on_host ? p.first_flops : std::max(p.first_flops, rate(AlgorithmChoice::fastest));
        peaks.flops = std::max(peaks.flops, p.flops);
    }
    peaks.copy = copy_rate();
    return peaks;
}

} // namespace lolcats::bench
