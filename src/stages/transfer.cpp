#include "src/stages/transfer.hpp"

#include "io/file.hpp"
#include "src/attempt.hpp"
#include "src/stages/run_report.hpp"
#include "src/stages/transfer_passes.hpp"

#include <algorithm>

namespace lolcats {

namespace {

/// Asked before the weights of a block are loaded, which may take long. Collective over the block's ranks.
bool has_to_stop(const Communicator& group, Interrupt& interrupt) {
    return group.any(interrupt.is_wanted());
}

/// Predicted bytes of this rank's arrays; it trains blocks of at most `layers` layers one after the other.
double array_bytes(const TransferRun& run, int layers, int ranks) {
    const RunPlan plan(run.input, with_form(run.options, run.form, run.tied), run.arithmetic, ranks);
    return layers == 0 ? 0 : transfer_memory(plan.plan, plan.options, layers, 1).total();
}

/// Layers of the largest of the blocks that this rank is to train.
int largest_block(const BlockLayout& layout, int first, int groups) {
    int largest = 0;
    for (int block = first; block < layout.blocks; block += groups)
        largest = std::max(largest, layout.layers_of(block).size());
    return largest;
}

} // namespace

void transfer_attention(const Options& options, const Communicator& world) {
    RunReport report;
    const RunInput input(options);
    const Attempt attempt(options, "lolcats_block", world);
    Interrupt interrupt(options, world);
    const TransferRun run = prepare_transfer(options, input, world, StoredStates::read);
    const int blocks = input.layout.blocks;
    const int groups = std::min(blocks, world.size());
    const Communicator group = world.split(world.rank() % groups, world.rank());
    const auto arrays = make_array_communicator(group, array_transport(options), "ranks of one block");
    if (world.rank() == 0) io::create_directories(transfer_directory(options));
    world.barrier();
    require_room(world, array_bytes(run, largest_block(input.layout, world.rank() % groups, groups), world.size()));

    Transferred all;
    int largest = 0; // layers of a block that was not finished before
    for (int block = world.rank() % groups; block < blocks && !all.stopped; block += groups) {
        if (is_finished(run, block, group)) continue;
        all.stopped = has_to_stop(group, interrupt);
        if (all.stopped) break;
        largest = std::max(largest, input.layout.layers_of(block).size());
        StoredStream stream(run, block, report.time);
        auto of_block = train_blocks(run, {block, block + 1}, {}, *arrays, stream, interrupt, report.time);
        std::move(of_block.first.begin(), of_block.first.end(), std::back_inserter(all.first));
        all.sequences = of_block.sequences;
        all.micro_batches += of_block.micro_batches;
        all.stopped = of_block.stopped;
    }
    if (interrupt.finish(all.stopped)) return;
    if (!options.dump_gradients.empty()) write_gradients(run, world, all.first);
    report.finish("lolcats_block", run, world,
                  {.pipeline_ranks = groups,
                   .sequences = all.sequences,
                   .micro_batches = all.micro_batches,
                   .bytes_sent = 0,
                   .array_bytes = array_bytes(run, largest, world.size())});
}

} // namespace lolcats
