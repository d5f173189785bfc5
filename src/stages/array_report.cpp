#include "src/stages/array_report.hpp"

#include "kernels/accelerator.hpp"
#include "kernels/views.hpp"
#include "lolcats/error.hpp"
#include "src/host_memory.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

Options as_run(const RunInput& input, Options options, Arithmetic arithmetic, int ranks) {
    options.gemm = name_of(arithmetic);
    options.plan_length = input.length();
    options.plan_tokens = std::max<double>(1, input.tokens.sequences()) * input.length();
    options.plan_ranks = ranks;
    options.pipeline_ranks = 0; // of no matter to the formulas, and not every stage is a pipeline
    return options;
}

} // namespace

RunPlan::RunPlan(const RunInput& input, const Options& options, Arithmetic arithmetic, int ranks)
    : options(as_run(input, options, arithmetic, ranks)), plan(make_plan(input.config, this->options)) {}

void require_room(const Communicator& world, double predicted) {
    double needed = predicted;
    if constexpr (runs_on_host) world.split_by_node().sum(&needed, 1);
    double lack = needed - (runs_on_host ? host_memory_free() : accelerator_memory_free());
    world.max(&lack, 1);
    if (lack > 0)
        fail("out of memory: arrays would take {:.2f} GB more than a {} has free: use more ranks, or a smaller "
             "--micro-batch or --block-layers; lolcats_plan shows the need",
             lack / 1e9, runs_on_host ? "node" : "GPU");
}

nlohmann::ordered_json ArrayReport::finish(const Communicator& world, double predicted) const {
    std::array<double, 2> bytes = {memory_.largest(), predicted};
    world.max(bytes.data(), bytes.size());
    if (world.rank() == 0)
        spdlog::info("arrays: at most {:.2f} MB a rank, {:.2f} MB predicted", bytes[0] / 1e6, bytes[1] / 1e6);
    return {{"largest", bytes[0]}, {"predicted", bytes[1]}};
}

} // namespace lolcats
