/// Each kernel by itself, at the shape of a decoder layer of Llama-3.2-1B:  bench_kernels [--benchmark_filter=...]
///
/// Counters: FLOP/s and bytes/s of what the mathematics asks for (every input and output once), and `of_limit`, the
/// part that the time is of what the machine's limits would allow: the faster product and copy that were measured
/// before. OMP_NUM_THREADS sets the threads.
#include "kernels/adamw.hpp"
#include "kernels/attention_head.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/feature_map.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/rope.hpp"
#include "kernels/scratch.hpp"
#include "kernels/softmax_attention.hpp"
#include "kernels/student_attention.hpp"
#include "kernels/swiglu.hpp"
#include "kernels/transfer_loss.hpp"
#include "tools/bench/attention_work.hpp"
#include "tools/bench/block/peaks.hpp"
#include "tools/bench/block/random_weights.hpp"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>

namespace lolcats::bench {

namespace {

constexpr double f32 = sizeof(float);
constexpr double f64 = sizeof(double);
constexpr double bf16 = sizeof(BFloat16);
constexpr double fp8 = sizeof(Float8);

const ModelConfig& layer() {
    static const ModelConfig config = {.hidden_size = 2048,
                                       .intermediate_size = 8192,
                                       .layers = 1,
                                       .heads = 32,
                                       .kv_heads = 8,
                                       .head_dim = 64,
                                       .vocab_size = 32768,
                                       .rms_norm_eps = 1e-5,
                                       .rope_theta = 5e5,
                                       .rope_scaling = {},
                                       .tie_word_embeddings = true,
                                       .attention_bias = false,
                                       .mlp_bias = false,
                                       .sliding_window = 0};
    return config;
}

/// The machine's limits, measured once.
const Peaks& limits() {
    static const Peaks peaks = [] {
        Settings settings;
        settings.model = layer();
        settings.options.micro_batch = 1;
        settings.options.plan_length = 1024;
        settings.square = 2048;
        return measure_peaks(settings, Arithmetic::f32);
    }();
    return peaks;
}

/// Times `body`, which does `flops` and moves `bytes` at least.
template <class Body>
void time_kernel(benchmark::State& state, double flops, double bytes, const Body& body) {
    body();
    Kokkos::fence("timed from here");
    for (auto _ : state) {
        body();
        Kokkos::fence("timed up to here");
    }
    const auto rate = [](double amount) {
        return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
    };
    state.counters["FLOP/s"] = rate(flops);
    state.counters["bytes/s"] = rate(bytes);
    state.counters["of_limit"] = rate(std::max(flops / limits().flops, bytes / limits().copy));
}

Matrix<float> random(const char* name, int rows, int columns, double scale = 1) {
    static std::uint64_t stream = 0;
    const Matrix<float> matrix(uninitialized(name), rows, columns);
    fill(matrix, scale, ++stream);
    return matrix;
}

Vector<float> ones(const char* name, int size) {
    const Vector<float> vector(uninitialized(name), size);
    Kokkos::deep_copy(vector, 1.0F);
    return vector;
}

void norm(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const auto x = random("x", n, layer().hidden_size);
    const auto y = random("y", n, layer().hidden_size);
    const auto weight = ones("weight", layer().hidden_size);
    const auto size = static_cast<double>(x.size());
    time_kernel(state, 4 * size, 2 * f32 * size, [&] { rms_norm(x, weight, 1e-5, y); });
}

void rope(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const RopeTable<float> table(rope_form(layer()), n);
    const auto q = random("q", n, layer().query_size());
    const auto size = static_cast<double>(q.size());
    time_kernel(state, 3 * size, 2 * f32 * size, [&] { rotate(table, Rotation::forward, n, layer().head_dim, q); });
}

void gated_unit(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const auto gate = random("gate", n, layer().intermediate_size);
    const auto up = random("up", n, layer().intermediate_size, 1e-3);
    const auto size = static_cast<double>(up.size());
    time_kernel(state, 4 * size, 3 * f32 * size, [&] { swiglu(gate, up, up); });
}

void optimizer(benchmark::State& state) {
    const auto size = static_cast<int>(state.range(0));
    const Vector<double> gradients("gradients", size);
    Kokkos::deep_copy(gradients, 1e-3);
    const Vector<float> first("first", size);
    const Vector<float> second("second", size);
    const auto values = ones("values", size);
    long step = 0;
    time_kernel(state, 12.0 * size, (f64 + 6 * f32) * size, [&] {
        adamw({0.9, 0.999, 1e-8, 0}, 1e-3, 1, ++step, gradients, first, second, values);
    });
}

template <Arithmetic arithmetic>
void product(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const int outputs = layer().intermediate_size;
    const int inputs = layer().hidden_size;
    const auto x = random("x", n, inputs);
    const auto y = random("y", n, outputs);
    const auto weight = random_weight(outputs, inputs, 3);
    Gemm<float> gemm(arithmetic);
    time_kernel(state, 2.0 * n * outputs * inputs,
                f32 * (x.size() + y.size()) + bf16 * outputs * static_cast<double>(inputs), [&] {
                    gemm.linear(x, {{weight, y}});
                });
}

void to_float8(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const auto x = random("x", n, layer().hidden_size);
    const ScaledFloat8 rounded("rounded", n, layer().hidden_size);
    const auto size = static_cast<double>(x.size());
    time_kernel(state, 3 * size, (f32 + fp8) * size, [&] { round_to_float8(x, rounded); });
}

void from_float8(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const ScaledFloat8 weight = random_weight(n, layer().hidden_size, 3, Storage::fp8).float8;
    const auto wide = random("wide", n, layer().hidden_size);
    const auto size = static_cast<double>(wide.size());
    time_kernel(state, size, (f32 + fp8) * size, [&] { widen(weight, wide.data()); });
}

void next_token_loss(benchmark::State& state) {
    const int n = static_cast<int>(state.range(0));
    const auto logits = random("logits", n, layer().vocab_size);
    const Vector<std::int32_t> labels("labels", n);
    const Vector<std::int32_t> predicted("predicted", n);
    const auto size = static_cast<double>(logits.size());
    time_kernel(state, 5 * size, 2 * f32 * size,
                [&] { benchmark::DoNotOptimize(cross_entropy(logits, labels, 1e-3F, predicted)); });
}

/// Arrays of one layer's attention, teacher and student.
struct Attention {
    AttentionShape shape;
    StudentForm form{NearKeys::terrace, 64, FeatureMapKind::hedgehog, layer().head_dim / 2, false};
    AttentionWork work;
    AttentionInputs<float> inputs;
    AttentionOutputs<float> teacher, outputs;
    Matrix<float> dy;
    Student<float> student;
    StudentGradients<float> gradients;

    explicit Attention(int length)
        : shape(attention_shape(layer(), 1, length)),
          work(attention_work(shape, form)), inputs{random("q", length, layer().query_size()),
                                                    random("k", length, layer().kv_size()),
                                                    random("v", length, layer().kv_size())},
          teacher(outputs_of("teacher")), outputs(outputs_of("student")),
          dy(random("dy", length, layer().query_size(), 1e-3)),
          gradients(shape.heads, shape.head_dim * form.feature_dim) {
        const auto map = [&](const char* name) {
            const auto values = random(name, shape.heads * shape.head_dim, form.feature_dim, 0.1);
            const Tensor3<float> weights(uninitialized(name), shape.heads, shape.head_dim, form.feature_dim);
            std::copy(values.data(), values.data() + values.size(), weights.data());
            return weights;
        };
        const Vector<float> none("bias", shape.heads);
        const Vector<float> factors(uninitialized("factors"), shape.heads);
        Kokkos::deep_copy(factors, -2.2F);
        student = {form, {map("q_map"), map("k_map"), none, none, factors}};
        softmax_attention(shape, inputs, teacher);
        student_attention(shape, student, inputs, outputs);
    }

    [[nodiscard]] AttentionOutputs<float> outputs_of(const std::string& label) const {
        return {Matrix<float>(label, shape.rows(), layer().query_size()),
                Matrix<float>(label, shape.heads, shape.length)};
    }
    [[nodiscard]] double flops(double of_head) const { return shape.heads * of_head; }
    [[nodiscard]] double bytes(double query_arrays) const {
        return f32 * (query_arrays * static_cast<double>(inputs.q.size()) + 2.0 * static_cast<double>(inputs.k.size()));
    }
};

void teacher(benchmark::State& state) {
    const Attention a(static_cast<int>(state.range(0)));
    time_kernel(state, a.flops(a.work.teacher), a.bytes(2), [&] { softmax_attention(a.shape, a.inputs, a.teacher); });
}

void student(benchmark::State& state) {
    const Attention a(static_cast<int>(state.range(0)));
    time_kernel(state, a.flops(a.work.forward), a.bytes(2),
                [&] { student_attention(a.shape, a.student, a.inputs, a.outputs); });
}

void student_maps_backward(benchmark::State& state) {
    const Attention a(static_cast<int>(state.range(0)));
    time_kernel(state, a.flops(a.work.maps), a.bytes(3),
                [&] { student_attention_backward(a.shape, a.student, a.inputs, a.outputs, a.dy, a.gradients); });
}

void student_inputs_backward(benchmark::State& state) {
    const Attention a(static_cast<int>(state.range(0)));
    const int n = a.shape.rows();
    const int width = layer().query_size();
    const AttentionInputGradients<float> inputs{Matrix<float>("dq", n, width), Matrix<float>("dk", n, width),
                                                Matrix<float>("dv", n, width)};
    time_kernel(state, a.flops(a.work.inputs), a.bytes(6), [&] {
        student_attention_backward(a.shape, a.student, a.inputs, a.outputs, a.dy, a.gradients, inputs);
    });
}

void weights_loss(benchmark::State& state) {
    const Attention a(static_cast<int>(state.range(0)));
    time_kernel(state, a.flops(a.work.entropy), a.bytes(1), [&] {
        benchmark::DoNotOptimize(attention_cross_entropy(a.shape, a.student, a.inputs,
                                                         {EntropyKeys::all, a.teacher.statistics, a.outputs.statistics},
                                                         1e-3F, a.gradients));
    });
}

/// phi of every query, by chunks as attention asks for them.
void feature_map(benchmark::State& state) {
    const Attention a(static_cast<int>(state.range(0)));
    const int chunk = a.form.window;
    const int f = a.form.feature_dim;
    const int p = features(a.form.map, f);
    const std::size_t bytes = sizeof(float) * chunk * (f + p + 64);
    const auto forward = [&] {
        Kokkos::parallel_for(
            "feature_map", team_policy(a.shape.heads, bytes), KOKKOS_LAMBDA(const Team& team) {
                Scratch<float> scratch(team.team_scratch(1).get_shmem(bytes));
                float* z = scratch.take(static_cast<std::size_t>(chunk) * f);
                float* phi = scratch.take(static_cast<std::size_t>(chunk) * p);
                const int head = team.league_rank();
                const HeadFeatureMap<float> map{a.form.map, a.shape.head_dim, f,
                                                &a.student.parameters.q_map(head, 0, 0), 0};
                const auto rows = attention_head(a.shape, head, a.inputs);
                for (int n = 0; n + chunk <= a.shape.length; n += chunk)
                    map.forward(team, chunk, rows.q + static_cast<std::size_t>(n) * rows.q_stride, rows.q_stride, z,
                                phi);
            });
    };
    const double n = a.shape.length;
    time_kernel(state, a.flops(n * (2.0 * a.shape.head_dim * f + 4.0 * p)),
                f32 * static_cast<double>(a.inputs.q.size()), forward);
}

void list(const char* name, void (*function)(benchmark::State&), const std::vector<std::int64_t>& sizes) {
    auto* entry = benchmark::RegisterBenchmark(name, function);
    for (const auto size : sizes) entry->Arg(size);
    entry->UseRealTime()->Unit(benchmark::kMillisecond);
}

void list_all() {
    list("rms_norm", norm, {1024});
    list("rope", rope, {1024});
    list("swiglu", gated_unit, {1024});
    list("adamw", optimizer, {1 << 22});
    list("product", product<Arithmetic::f32>, {256, 1024});
    list("exact_product", product<Arithmetic::exact>, {256, 1024});
    list("round_to_float8", to_float8, {1024});
    list("widen_float8", from_float8, {8192});
    list("cross_entropy", next_token_loss, {256});
    list("feature_map", feature_map, {1024});
    list("teacher_attention", teacher, {1024, 4096});
    list("student_attention", student, {1024, 4096});
    list("student_backward_maps", student_maps_backward, {1024, 4096});
    list("student_backward_inputs", student_inputs_backward, {1024, 4096});
    list("attention_cross_entropy", weights_loss, {1024});
}

} // namespace

} // namespace lolcats::bench

int main(int argc, char** argv) {
    using namespace lolcats;
    const Kokkos::ScopeGuard kokkos(Kokkos::InitializationSettings().set_disable_warnings(true));
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    fmt::print(stderr, "limits: products {:.1f} GFLOP/s, copy {:.1f} GB/s, {} threads\n", bench::limits().flops * 1e-9,
               bench::limits().copy * 1e-9, Execution().concurrency());
    bench::list_all();
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
