#include "src/stages/array_report.hpp"

#include "kernels/accelerator.hpp"
#include "kernels/views.hpp"
#include "lolcats/error.hpp"
#include "src/host_memory.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <vector>

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

/// The ranks whose arrays lie in the same memory: a GPU's, or on a host the node's.
Communicator ranks_of_same_memory(const Communicator& world) {
    const Communicator node = world.split_by_node();
    const auto accelerators = node.gather(accelerator_identity(), 0);
    std::vector<std::int64_t> first(node.size()); // rank of the node's that has the same
    for (std::size_t i = 0; i < accelerators.size(); ++i)
        first[i] = std::find(accelerators.begin(), accelerators.end(), accelerators[i]) - accelerators.begin();
    node.broadcast(first.data(), first.size() * sizeof first[0], 0);
    return node.split(static_cast<int>(first[node.rank()]), node.rank());
}

} // namespace

Neighbours neighbours(const Mesh& mesh) {
    return {.before = mesh.stage > 0, .after = mesh.stage + 1 < mesh.pipeline_ranks};
}

RunPlan::RunPlan(const RunInput& input, const Options& options, Arithmetic arithmetic, int ranks)
    : options(as_run(input, options, arithmetic, ranks)), plan(make_plan(input.config, this->options)) {}

void require_room(const Communicator& world, double predicted) {
    const Communicator sharers = ranks_of_same_memory(world);
    if (!runs_on_host && sharers.rank() == 0 && sharers.size() > 1)
        spdlog::warn("{} ranks share a GPU: one rank a GPU is faster", sharers.size());
    double needed = predicted;
    sharers.sum(&needed, 1);
    double lack = needed - (runs_on_host ? host_memory_free() : accelerator_memory_free());
    world.max(&lack, 1);
    if (lack > 0)
        fail("out of memory: arrays would take {:.2f} GB more than a {} has free: use more ranks, a smaller "
             "--micro-batch or --block-layers, or --dtype fp8; lolcats_plan shows the need",
             lack / 1e9, runs_on_host ? "node" : "GPU");
}

nlohmann::ordered_json ArrayReport::finish(const Communicator& world, double predicted) const {
    std::array<double, 3> bytes = {memory_.largest(), predicted, accelerator_memory_in_use()};
    world.max(bytes.data(), bytes.size());
    if (world.rank() == 0) {
        const std::string device = runs_on_host ? "" : fmt::format(", {:.2f} MB in use on the GPU", bytes[2] / 1e6);
        spdlog::info("arrays: at most {:.2f} MB a rank, {:.2f} MB predicted{}", bytes[0] / 1e6, bytes[1] / 1e6, device);
    }
    return {{"largest", bytes[0]}, {"predicted", bytes[1]}};
}

} // namespace lolcats
