// Times the attention kernels on a GPU: teacher forward, student forward with the squared error, student forward and
// backward (maps alone; q, k, v too), for sequences of 1k to 64k tokens. tools/build_cuda_kernels.sh builds it.
//
//     attention_cuda [key=value ...]     keys and defaults: see struct Settings
//
// FLOP are those the mathematics asks for (near pairs that count, states, maps), bytes those of inputs and outputs:
// each line says how much of the measured peak of mma.sync and of the measured copy bandwidth that is. `peak_tflops`:
// give the peak of cuBLASLt on this machine to be compared with it as well.
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tools/bench/attention_work.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace lolcats;
using cuda::check;

struct Settings {
    int batch = 1;
    int heads = 32;
    int kv_heads = 8;
    int head_dim = 128;
    int feature_dim = 64;
    int window = 64;
    int shortest = 1024;
    int longest = 65536;
    int repeats = 10;
    std::string near = "terrace";
    double peak_tflops = 0;

    void set(const std::string& key, const std::string& value) {
        const std::vector<std::pair<const char*, int*>> numbers = {
            {"batch", &batch},       {"heads", &heads},     {"kv_heads", &kv_heads},
            {"head_dim", &head_dim}, {"window", &window},   {"shortest", &shortest},
            {"longest", &longest},   {"repeats", &repeats}, {"feature_dim", &feature_dim}};
        for (const auto& [name, number] : numbers)
            if (key == name) {
                *number = std::stoi(value);
                return;
            }
        if (key == "near" && (value == "terrace" || value == "sliding" || value == "none"))
            near = value;
        else if (key == "peak_tflops")
            peak_tflops = std::stod(value);
        else
            throw std::invalid_argument(
                key + "=" + value +
                ": use batch, heads, kv_heads, head_dim, feature_dim, window, shortest, longest, "
                "repeats, near=terrace|sliding|none or peak_tflops");
    }
};

Settings settings_from(int argc, char** argv) {
    Settings settings;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        const auto equals = argument.find('=');
        settings.set(argument.substr(0, equals), equals == std::string::npos ? "" : argument.substr(equals + 1));
    }
    return settings;
}

__global__ void fill_kernel(float* values, std::size_t count, float scale, unsigned seed) {
    const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned bits = static_cast<unsigned>(i) * 2654435761U ^ seed * 0x9e3779b9U;
    bits ^= bits >> 16;
    bits *= 0x85ebca6bU;
    bits ^= bits >> 13;
    bits *= 0xc2b2ae35U;
    bits ^= bits >> 16;
    values[i] = scale * (static_cast<float>(bits) * 4.6566e-10F - 1);
}

/// Device memory, filled with uniform deviates in +-scale.
class Array {
public:
    Array(std::size_t count, float scale, unsigned seed) : count_(count) {
        check(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(float)), "cudaMalloc");
        const auto blocks = static_cast<unsigned>((count + 255) / 256);
        cuda::launch("fill", fill_kernel, dim3(blocks), 256, 0, nullptr, data_, count, scale, seed);
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { cudaFree(data_); }

    [[nodiscard]] float* data() const { return data_; }
    [[nodiscard]] std::size_t bytes() const { return count_ * sizeof(float); }

private:
    float* data_ = nullptr;
    std::size_t count_;
};

/// Median seconds of `repeats` calls after two that are not counted.
double seconds(int repeats, const std::function<void()>& body) {
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    check(cudaEventCreate(&begin), "cudaEventCreate");
    check(cudaEventCreate(&end), "cudaEventCreate");
    std::vector<float> times;
    for (int i = 0; i < repeats + 2; ++i) {
        check(cudaEventRecord(begin), "cudaEventRecord");
        body();
        check(cudaEventRecord(end), "cudaEventRecord");
        check(cudaEventSynchronize(end), "the timed kernels");
        float milliseconds = 0;
        check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
        if (i >= 2) times.push_back(milliseconds);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    return static_cast<double>(times[times.size() / 2]) * 1e-3;
}

constexpr int peak_steps = 4096;
constexpr int peak_chains = 8;

/// Nothing but products, in independent chains.
__global__ void peak_kernel(float* out) {
    float c[peak_chains][4] = {};
    const cuda::Pair a[4] = {threadIdx.x, threadIdx.x + 1, threadIdx.x + 2, threadIdx.x + 3};
    for (int step = 0; step < peak_steps; ++step)
#pragma unroll
        for (int chain = 0; chain < peak_chains; ++chain)
            cuda::multiply_add(c[chain], a, a[chain % 4], a[3 - chain % 4]);
    float sum = 0;
    for (int chain = 0; chain < peak_chains; ++chain)
        for (int e = 0; e < 4; ++e) sum += c[chain][e];
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

struct Peaks {
    double flops; ///< a second, of mma.sync
    double bytes; ///< a second, read and written by a copy
};

Peaks measure_peaks(const cudaDeviceProp& device, int repeats) {
    constexpr int threads = 512;
    const int blocks = 2 * device.multiProcessorCount;
    const Array out(static_cast<std::size_t>(blocks) * threads, 1, 1);
    const double product_time = seconds(repeats, [&] {
        cuda::launch("peak", peak_kernel, dim3(static_cast<unsigned>(blocks)), threads, 0, nullptr, out.data());
    });
    const double products = 1.0 * blocks * (threads / 32) * peak_steps * peak_chains;
    const Array from(std::size_t{1} << 28, 1, 2);
    const Array to(std::size_t{1} << 28, 1, 3);
    const double copy_time = seconds(repeats, [&] {
        check(cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDeviceToDevice, nullptr), "copy");
    });
    return {products * 2 * 16 * 8 * 16 / product_time, 2.0 * static_cast<double>(from.bytes()) / copy_time};
}

/// All arrays of one length, and the calls to be timed.
struct Bench {
    AttentionShape shape;
    StudentForm form;
    std::size_t rows = static_cast<std::size_t>(shape.batch) * shape.length;
    std::size_t wide = rows * shape.heads * shape.head_dim;
    std::size_t narrow = rows * shape.kv_heads * shape.head_dim;
    std::size_t heads = static_cast<std::size_t>(shape.batch) * shape.heads;
    std::size_t map = static_cast<std::size_t>(shape.head_dim) * form.feature_dim;
    Array q{wide, 1.7F, 1}, k{narrow, 1.7F, 2}, v{narrow, 1.7F, 3};
    Array q_map{shape.heads * map, 0.15F, 4}, k_map{shape.heads * map, 0.15F, 5}, g{heads, 1, 6};
    Array teacher{wide, 0, 0}, log_sum{rows * shape.heads, 0, 0};
    Array y{wide, 0, 0}, normalizer{rows * shape.heads, 0, 0}, dy{wide, 0, 0}, loss{2, 0, 0};
    Array dq_map{heads * map, 0, 0}, dk_map{heads * map, 0, 0}, dg{heads, 0, 0};
    Array dq{wide, 0, 0}, dk{wide, 0, 0}, dv{wide, 0, 0};
    Array workspace{std::max({cuda::softmax_attention_workspace(shape), cuda::student_attention_workspace(shape, form),
                              cuda::student_attention_backward_workspace(shape, form),
                              cuda::attention_cross_entropy_workspace(shape, form)}) /
                        sizeof(float),
                    0, 0};

    [[nodiscard]] cuda::AttentionInputs inputs() const { return {q.data(), k.data(), v.data()}; }
    [[nodiscard]] cuda::Workspace memory() const { return {workspace.data(), workspace.bytes()}; }
    [[nodiscard]] cuda::StudentParameterPointers parameters() const {
        return {q_map.data(), k_map.data(), nullptr, nullptr, g.data()};
    }

    void teacher_forward() const {
        cuda::softmax_attention(shape, inputs(), teacher.data(), log_sum.data(), memory(), nullptr);
    }
    void student_forward() const {
        const cuda::SquaredError error{teacher.data(), 1e-3F, dy.data(), reinterpret_cast<double*>(loss.data())};
        cuda::student_attention(shape, form, parameters(), inputs(), y.data(), normalizer.data(), &error, memory(),
                                nullptr);
    }
    [[nodiscard]] cuda::StudentGradientPointers parameter_gradients() const {
        return {dq_map.data(), dk_map.data(), nullptr, nullptr, dg.data()};
    }
    void maps_backward() const {
        cuda::student_attention_backward(shape, form, parameters(), inputs(), {y.data(), normalizer.data(), dy.data()},
                                         parameter_gradients(), nullptr, memory(), nullptr);
    }
    void inputs_backward() const {
        const cuda::InputGradientPointers gradients{dq.data(), dk.data(), dv.data()};
        cuda::student_attention_backward(shape, form, parameters(), inputs(), {y.data(), normalizer.data(), dy.data()},
                                         {}, &gradients, memory(), nullptr);
    }
    void cross_entropy() const {
        const cuda::StudentGradientPointers gradients = parameter_gradients();
        cuda::attention_cross_entropy(shape, form, parameters(), q.data(), k.data(),
                                      {log_sum.data(), normalizer.data()}, 1e-3F, &gradients,
                                      reinterpret_cast<double*>(loss.data()), memory(), nullptr);
    }
};

struct Report {
    const Settings& settings;
    Peaks peaks;

    void line(const char* what, const AttentionShape& shape, double flops, double bytes, double time) const {
        std::printf("%-34s T %6d  %9.3f ms  %8.1f ktoken/s  %6.1f TFLOP/s (%4.1f %% of mma peak", what, shape.length,
                    time * 1e3, shape.rows() / time * 1e-3, flops / time * 1e-12, 100 * flops / time / peaks.flops);
        if (settings.peak_tflops > 0)
            std::printf(", %4.1f %% of %.0f TFLOP/s", 100e-12 * flops / time / settings.peak_tflops,
                        settings.peak_tflops);
        std::printf(")  %6.0f GB/s (%4.1f %% of copy)\n", bytes / time * 1e-9, 100 * bytes / time / peaks.bytes);
        std::fflush(stdout);
    }

    void length(const Bench& bench) const {
        const AttentionShape& s = bench.shape;
        const AttentionWork work = attention_work(s, bench.form);
        const auto heads = static_cast<double>(bench.heads);
        const auto in_out = static_cast<double>(bench.q.bytes() + bench.k.bytes() + bench.v.bytes());
        const auto wide = static_cast<double>(bench.q.bytes());
        const auto timed = [&](const char* what, double flops, double bytes, const std::function<void()>& body) {
            line(what, s, flops * heads, bytes, seconds(settings.repeats, body));
        };
        timed("teacher forward", work.teacher, in_out + wide, [&] { bench.teacher_forward(); });
        timed("student forward + error", work.forward, in_out + 3 * wide, [&] { bench.student_forward(); });
        timed("student backward, maps", work.maps, in_out + 2 * wide, [&] { bench.maps_backward(); });
        timed("student forward + backward, maps", work.forward + work.maps, 2 * in_out + 5 * wide, [&] {
            bench.student_forward();
            bench.maps_backward();
        });
        timed("student forward + backward, q k v", work.forward + work.frozen, 2 * in_out + 8 * wide, [&] {
            bench.student_forward();
            bench.inputs_backward();
        });
        timed("cross-entropy with gradients", work.entropy, in_out, [&] { bench.cross_entropy(); });
    }
};

void run(const Settings& settings) {
    int devices = 0;
    check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    cudaDeviceProp device = {};
    check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    const Report report{settings, measure_peaks(device, settings.repeats)};
    std::printf("%s, %d multiprocessors: mma.sync %.0f TFLOP/s, copy %.0f GB/s\n", device.name,
                device.multiProcessorCount, report.peaks.flops * 1e-12, report.peaks.bytes * 1e-9);
    std::printf("B %d, H %d, H_kv %d, d %d, f %d, w %d, %s\n", settings.batch, settings.heads, settings.kv_heads,
                settings.head_dim, settings.feature_dim, settings.window, settings.near.c_str());
    const NearKeys near = settings.near == "terrace"   ? NearKeys::terrace
                          : settings.near == "sliding" ? NearKeys::sliding
                                                       : NearKeys::none;
    for (int length = settings.shortest; length <= settings.longest; length *= 2) {
        const AttentionShape shape{settings.batch, length, settings.heads, settings.kv_heads, settings.head_dim};
        const StudentForm form{near, settings.window, FeatureMapKind::hedgehog, settings.feature_dim, false};
        if (!cuda::supports(shape, form)) throw std::invalid_argument("these sizes have no CUDA kernels");
        report.length(Bench{shape, form});
    }
}

} // namespace

int main(int argc, char** argv) {
    try {
        run(settings_from(argc, argv));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "attention_cuda: %s\n", error.what());
        return 1;
    }
    return 0;
}
