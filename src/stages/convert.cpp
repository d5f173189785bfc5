#include "src/stages/convert.hpp"

#include "io/file.hpp"
#include "lolcats/error.hpp"
#include "src/attempt.hpp"
#include "src/stages/run_report.hpp"
#include "src/stages/transfer_passes.hpp"

#include <algorithm>

namespace lolcats {

namespace {

/// A store can round what it holds while the teacher goes on unrounded; one stream cannot be both.
void refuse_rounded_store(const Options& options) {
    if (options.dtype == "f32" && options.hidden_dtype == "bf16")
        fail("hidden-dtype bf16 with dtype f32 rounds stored states, and lolcats_convert stores none: leave "
             "hidden-dtype out, or use lolcats_hidden and lolcats_block");
}

/// Steps that are worked off between the first stage's word to stop and the end of the last one.
int steps_under_way(const Options& options, const Mesh& mesh) {
    const auto micro_batches = (mesh.pipeline_ranks - 1) * (static_cast<std::int64_t>(StageLink::most_under_way) + 1);
    const std::int64_t sequences = micro_batches * std::min(options.micro_batch, options.batch_size) * mesh.data_ranks;
    return static_cast<int>(1 + (sequences + options.batch_size - 1) / options.batch_size);
}

/// Predicted bytes of this rank's arrays.
double array_bytes(const TransferRun& run, const Mesh& mesh) {
    const RunPlan plan(run.input, with_form(run.options, run.form, run.tied), run.arithmetic,
                       mesh.pipeline_ranks * mesh.data_ranks);
    const Range blocks = blocks_of_stage(run.input.layout.blocks, mesh.pipeline_ranks, mesh.stage);
    const int layers = run.input.layout.layers_of(blocks).size();
    return transfer_memory(plan.plan, plan.options, layers, blocks.size()).total() +
           residual_link_memory(plan.plan, plan.options, neighbours(mesh));
}

} // namespace

void convert_streaming(const Options& options, const Communicator& world) {
    refuse_rounded_store(options);
    RunReport report;
    const RunInput input(options);
    const Mesh mesh = make_mesh(world, input.layout.blocks, options.pipeline_ranks);
    const Attempt attempt(options, "lolcats_convert", world);
    Interrupt interrupt(options, world, steps_under_way(options, mesh));
    const TransferRun run = prepare_transfer(options, input, world, StoredStates::unread);
    if (world.rank() == 0) io::create_directories(transfer_directory(options));
    world.barrier();
    const double predicted = array_bytes(run, mesh);
    require_room(world, predicted);

    const ArrayTransport transport = array_transport(options);
    const auto replicas = make_array_communicator(mesh.data, transport, replicas_name(mesh));
    PipelineStream stream(input, mesh.pipeline, transport, report.time);
    const Range blocks = blocks_of_stage(input.layout.blocks, mesh.pipeline_ranks, mesh.stage);
    std::set<int> finished;
    for (int block = blocks.begin; block < blocks.end; ++block)
        if (is_finished(run, block, mesh.data)) finished.insert(block);
    const Transferred result = train_blocks(run, blocks, finished, *replicas, stream, interrupt, report.time);
    stream.close();
    if (interrupt.finish(result.stopped)) return;
    if (!options.dump_gradients.empty()) write_gradients(run, world, result.first);
    report.finish("lolcats_convert", run, world,
                  {.pipeline_ranks = mesh.pipeline_ranks,
                   .sequences = result.sequences,
                   .micro_batches = result.micro_batches,
                   .bytes_sent = stream.bytes_sent(),
                   .array_bytes = predicted});
}

} // namespace lolcats
