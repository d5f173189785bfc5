/// Times a block of decoder layers on one processor in the program's own code, with random weights: the teacher
/// (stage 0), attention transfer (stages 0 and 1 in one pass) or one pipeline stage of LoRA. Needs neither MPI nor
/// HDF5.
///
///     block_405b [--stage teacher|transfer|lora] [--model 405b|70b|8b|1b] [--layers K] ...      (--help lists all)
///
/// Two measurements: the step as it is, and once more with every kernel waited for, which gives the split and the
/// roofline. The peak it is held against is measured in the same run. With --timing-only, the first of them alone.
#include "kernels/accelerator.hpp"
#include "kernels/attention_twin.hpp"
#include "lolcats/error.hpp"
#include "src/array_memory.hpp"
#include "tools/bench/block/block_run.hpp"
#include "tools/bench/block/report.hpp"
#include "tools/bench/block/stopwatch.hpp"

#include <cstdio>
#include <fstream>

namespace lolcats::bench {

namespace {

Arithmetic arithmetic_of(Options& options) {
    if (options.gemm == "auto") options.gemm = measure_arithmetic() == Arithmetic::bf16 ? "bf16" : "f32";
    twin::use_tensor_cores(options.gemm != "f32");
    if (options.gemm == "fp8") return Arithmetic::fp8;
    return options.gemm == "bf16" ? Arithmetic::bf16 : Arithmetic::f32;
}

/// A step's times by kernel, from `steps` of them.
void measure_split(BlockRun& run, int steps, Figures& figures) {
    KernelTimes times;
    figures.split_seconds = seconds([&] {
                                for (int i = 0; i < steps; ++i) run.step();
                            }) /
                            steps;
    figures.times = times.read();
    for (auto& [name, entry] : figures.times) {
        entry.seconds /= steps;
        entry.calls /= steps;
        if (class_of(name) == "optimizer") figures.optimizer_seconds += entry.seconds;
    }
}

std::unique_ptr<BlockRun> make_run(const Settings& settings, Arithmetic arithmetic) {
    if (settings.stage == "teacher") return make_teacher_run(settings, arithmetic);
    return settings.stage == "lora" ? make_lora_run(settings, arithmetic) : make_transfer_run(settings, arithmetic);
}

double step_seconds(BlockRun& run, int steps) {
    run.step(); // compiles and chooses what products need
    return seconds([&] {
               for (int i = 0; i < steps; ++i) run.step();
           }) /
           steps;
}

void time_alone(const Settings& settings, Arithmetic arithmetic) {
    const double time = step_seconds(*make_run(settings, arithmetic), settings.steps);
    const double tokens = static_cast<double>(settings.options.batch_size) * settings.length();
    const nlohmann::ordered_json figures = {{"seconds_a_step", time}, {"tokens_per_second", tokens / time}};
    fmt::print("{}\n", figures.dump());
}

void measure(const Settings& settings, Arithmetic arithmetic, const Plan& plan, Figures& figures) {
    figures.peaks = measure_peaks(settings, arithmetic);
    if (settings.stage == "lora") figures.head_seconds = head_seconds(settings, arithmetic);
    const double in_use_before = accelerator_memory_in_use();
    const ArrayMemory memory;
    const auto run = make_run(settings, arithmetic);
    figures.passes = run->passes();
    figures.work = run->work();
    figures.predicted = run->predicted_memory(plan);
    figures.seconds = step_seconds(*run, settings.steps);
    measure_split(*run, settings.steps, figures);
    figures.array_bytes = memory.largest();
    figures.processor_bytes = accelerator_memory_in_use();
    figures.block_bytes = figures.processor_bytes - in_use_before;
}

void run(Settings settings) {
    const Arithmetic arithmetic = arithmetic_of(settings.options);
    if (settings.timing_only) return time_alone(settings, arithmetic);
    const Plan plan = make_plan(settings.model, settings.options);
    Figures figures;
    figures.machine = accelerator_name();
    figures.arithmetic = settings.options.gemm;
    measure(settings, arithmetic, plan, figures);
    std::fputs(to_text(settings, plan, figures).c_str(), stdout);
    if (settings.json.empty()) return;
    std::ofstream file(settings.json);
    file << to_json(settings, plan, figures).dump(2) << '\n';
    file.close();
    if (!file) fail("{}: cannot be written; give another --json", settings.json);
}

} // namespace

} // namespace lolcats::bench

int main(int argc, char** argv) {
    using namespace lolcats;
    try {
        bench::Settings settings;
        std::string text;
        if (!bench::read_settings(argc, argv, settings, text)) {
            std::fputs(text.c_str(), stdout);
            return 0;
        }
        if (accelerator_count() == 0) fail("no GPU: {}; run it where one is", missing_accelerator());
        const Kokkos::ScopeGuard kokkos(Kokkos::InitializationSettings().set_disable_warnings(true));
        bench::run(settings);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "block_405b: %s\n", error.what());
        return 1;
    }
    return 0;
}
