#include "src/stages/run_report.hpp"

#include "io/file.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <sstream>

namespace lolcats {

namespace {

/// A figure of /proc/self/status in bytes, such as VmHWM (peak of resident memory); 0 where there is none.
std::int64_t memory(const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        std::istringstream words(line);
        std::string key;
        std::int64_t kilobytes = 0;
        if (words >> key >> kilobytes && key == name + ":") return kilobytes * 1024;
    }
    return 0;
}

/// Mean and largest over all ranks.
nlohmann::ordered_json over_ranks(const Communicator& world, double value) {
    double sum = value;
    double largest = value;
    world.sum(&sum, 1);
    world.max(&largest, 1);
    return {{"mean", sum / world.size()}, {"largest", largest}};
}

void print(const nlohmann::ordered_json& report) {
    const double total = report["seconds"]["mean"];
    const auto percent = [&](const char* part) { return 100 * report[part]["mean"].get<double>() / total; };
    spdlog::info("{:.2f} s: compute {:.1f} %, waiting for other ranks {:.1f} %, files {:.1f} %; {:.6g} MB between "
                 "stages; at most {:.1f} MB a rank",
                 total, percent("compute_seconds"), percent("wait_seconds"), percent("file_seconds"),
                 report["bytes_sent"].get<double>() / 1e6, report["memory"]["largest"].get<double>() / 1e6);
}

} // namespace

RunReport::RunReport() : memory_at_start_(memory("VmRSS")) {}

void RunReport::finish(const std::string& program, const TransferRun& run, const Communicator& world,
                       const Traffic& traffic) const {
    const double total = time.total();
    const double wait = time.seconds(TimeSplit::wait);
    const double files = time.seconds(TimeSplit::files);
    auto bytes_sent = static_cast<double>(traffic.bytes_sent);
    world.sum(&bytes_sent, 1);
    std::int64_t micro_batches = traffic.micro_batches;
    world.max(&micro_batches, 1);
    const nlohmann::ordered_json report = {
        {"program", program},
        {"ranks", world.size()},
        {"pipeline_ranks", traffic.pipeline_ranks},
        {"block_layers", run.input.layout.block_layers},
        {"length", run.input.length()},
        {"micro_batch", run.options.micro_batch},
        {"tokens", traffic.sequences * run.input.length()},
        {"micro_batches", micro_batches},
        {"seconds", over_ranks(world, total)},
        {"compute_seconds", over_ranks(world, total - wait - files)},
        {"wait_seconds", over_ranks(world, wait)},
        {"file_seconds", over_ranks(world, files)},
        {"bytes_sent", bytes_sent},
        {"memory", over_ranks(world, static_cast<double>(memory("VmHWM") - memory_at_start_))},
        {"arrays", arrays_.finish(world, traffic.array_bytes)}};
    if (world.rank() != 0) return;
    print(report);
    io::write_file_atomically(transfer_directory(run.options) / "run.json", report.dump(1) + "\n");
}

} // namespace lolcats
