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
    std::int64_t wanted = interrupt.is_wanted() ? 1 : 0;
    group.max(&wanted, 1);
    return wanted != 0;
}

} // namespace

void transfer_attention(const Options& options, const Communicator& world) {
    RunReport report;
    const RunInput input(options);
    const Attempt attempt(options, "lolcats_block", world);
    Interrupt interrupt(options, world);
    const TransferRun run = prepare_transfer(options, input, world);
    const int blocks = input.layout.blocks;
    const int groups = std::min(blocks, world.size());
    const Communicator group = world.split(world.rank() % groups, world.rank());
    const auto arrays = make_array_communicator(group, array_transport(options), "ranks of one block");
    if (world.rank() == 0) io::create_directories(transfer_directory(options));
    world.barrier();

    Transferred all;
    for (int block = world.rank() % groups; block < blocks && !all.stopped; block += groups) {
        if (is_finished(run, block, group)) continue;
        all.stopped = has_to_stop(group, interrupt);
        if (all.stopped) break;
        StoredStream stream(options, input, run.content, block, report.time);
        auto of_block = train_blocks(run, {block, block + 1}, {}, *arrays, stream, interrupt, report.time);
        std::move(of_block.first.begin(), of_block.first.end(), std::back_inserter(all.first));
        all.sequences = of_block.sequences;
        all.micro_batches += of_block.micro_batches;
        all.stopped = of_block.stopped;
    }
    if (interrupt.finish(all.stopped)) return;
    if (!options.dump_gradients.empty()) write_gradients(run, world, all.first);
    report.finish(
        "lolcats_block", run, world,
        {.pipeline_ranks = groups, .sequences = all.sequences, .micro_batches = all.micro_batches, .bytes_sent = 0});
}

} // namespace lolcats
