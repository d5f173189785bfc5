#include "src/stages/block_training.hpp"

#include "io/array_file.hpp"
#include "lolcats/error.hpp"
#include "src/stages/form_notices.hpp"
#include "src/stages/replica_weights.hpp"
#include "src/stages/softmax_layers.hpp"
#include "src/train/collectives.hpp"

#include <cmath>
#include <numeric>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

const std::string losses_name = "layer_losses";

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::filesystem::path block_file(const Options& options, int block, const char* extension) {
    return transfer_directory(options) / fmt::format("block_{:02}{}", block, extension);
}

std::filesystem::path state_directory(const Options& options, int block) {
    return transfer_directory(options) / "state" / fmt::format("block_{:02}", block);
}

} // namespace

TransferRun prepare_transfer(const Options& options, const RunInput& input, const Communicator& world,
                             StoredStates states) {
    std::optional<FeatureMapFiles> start;
    if (!options.init_feature_maps.empty()) {
        refuse_own_results("init-feature-maps", options.init_feature_maps, transfer_directory(options));
        start.emplace(options.init_feature_maps);
    }
    TransferRun run{options,
                    input,
                    student_form(options, input.config, start ? &*start : nullptr),
                    are_maps_tied(options, start ? &*start : nullptr),
                    settle_arithmetic(options, world, states),
                    identify(input, world),
                    {},
                    Batches(options, input.tokens.sequences())};
    if (world.rank() == 0) {
        warn_if_pure_softmax(run.form, input.length());
        if (start) warn_of_assumed_form(options, *start, run.form);
    }
    const std::string maps = world.rank() == 0 && start ? content_identity(start->files()) : "none";
    run.identity = IdentityBuilder(options, input, run.content, "lolcats_block")
                       .with_options({"hidden-dtype", "mse-factor", "xent-factor", "far-xent-factor", "layer-loss"})
                       .with(form_metadata(run.form, run.tied))
                       .with({{"block-layers", std::to_string(input.layout.block_layers)},
                              {"gemm", name_of(run.arithmetic)},
                              {"init-feature-maps", world.broadcast(maps, 0)}})
                       .build();
    return run;
}

bool is_finished(const TransferRun& run, int block, const Communicator& group) {
    bool finished = false;
    if (group.rank() == 0) {
        // Asked in any case: it refuses to replace what is another model's.
        const bool is_there = is_result(block_file(run.options, block, ".safetensors"), run.identity, run.options);
        finished = is_there && run.options.dump_gradients.empty();
    }
    finished = group.any(finished);
    if (finished && group.rank() == 0) {
        spdlog::info("block {:2} is trained already", block);
        remove_checkpoints(state_directory(run.options, block), run.identity);
    }
    return finished;
}

void write_gradients(const TransferRun& run, const Communicator& world, const FirstBatch& mine) {
    const FirstBatch all = gather(world, mine);
    if (world.rank() != 0) return;
    io::ArrayFile file(run.options.dump_gradients);
    std::vector<double> losses(run.input.config.layers);
    for (const auto& array : all) {
        if (array.name == losses_name)
            std::copy(array.values.begin(), array.values.end(), losses.begin() + array.shape.front());
        else
            file.write(array.name, array.shape, array.values.data());
    }
    const double loss = mean(losses);
    file.write("loss", {}, &loss);
    file.write(losses_name, {run.input.config.layers}, losses.data());
    file.close();
}

BlockTraining::BlockTraining(const TransferRun& run, int block, bool finished, ArrayCommunicator& group,
                             Interrupt& interrupt, TimeSplit& time)
    : run_(run), index_(block), arrays_(group), group_(group.control()), time_(time), progress_(run.options, 1e-2),
      block_(load_layers<float>(ReplicaWeights(run.options, run.input, group).source(), run.input.config,
                                run.input.layout.layers_of(block), run.input.storage),
             run.input.config, run.form, run.tied, run.input.storage, run.arithmetic, run.input.layout.layers_of(block),
             run.input.shape(run.options.micro_batch),
             {run.options.mse_factor, run.options.xent_factor, run.options.far_xent_factor,
              run.options.layer_loss == "normalized"}),
      window_dropout_(run.options, run.batches.steps()),
      checkpoints_(run.options,
                   {state_directory(run.options, block), run.identity, run.input.layout, group.rank() == 0}, group_,
                   interrupt),
      is_finished_(finished) {
    if (is_finished_) return;
    const Options& options = run.options;
    block_.students().initialize(options.feature_map_init, options.seed);
    if (!options.init_feature_maps.empty()) block_.students().load(FeatureMapFiles(options.init_feature_maps));
    const std::int64_t log_bytes = checkpoints_.resume(block_.parameters(), progress_);
    if (group.rank() == 0) log_.emplace(block_file(options, block, ".jsonl"), log_bytes);
}

int BlockTraining::start() const {
    return is_finished_ ? run_.batches.steps() : progress_.start();
}

bool BlockTraining::takes_part(const Pass& pass) const {
    if (is_finished_) return false;
    // A checkpoint is written after the evaluation at its step.
    return pass.train ? pass.step >= progress_.step() : pass.step > progress_.start();
}

void BlockTraining::before_step(bool stops) {
    if (!is_finished_) checkpoints_.before_step(block_.parameters(), progress_, log_ ? &*log_ : nullptr, stops);
}

void BlockTraining::begin(const Pass& pass) {
    pass_ = pass;
    takes_part_ = takes_part(pass);
    pass_start_ = Clock::now();
    losses_ = LayerLosses(block_.layers().size());
    block_.set_form(pass.train ? window_dropout_.form(run_.form, pass.step) : run_.form);
    if (!pass.train || !takes_part_) return;
    block_.parameters().zero_gradients();
    if (!pace_)
        pace_.emplace(fmt::format("block {}:", index_), "steps", 1.0 * run_.options.batch_size * run_.input.length(),
                      progress_.step(), run_.batches.steps(), group_.rank() == 0);
}

void BlockTraining::add(const AttentionShape& shape, const Matrix<float>& x, bool hands_on) {
    if (!takes_part_) {
        if (hands_on) block_.pass_through(shape, x);
        return;
    }
    block_.run(shape, x, static_cast<double>(pass_.batch.size()), pass_.train, hands_on, losses_);
    require_finite(); // before the stream carries it into other blocks, which would fail too
}

void BlockTraining::end() {
    if (!takes_part_) return;
    if (pass_.batch.empty()) return progress_.follow_training();
    time_.measure(TimeSplit::wait, [&] {
        group_.sum(losses_.total.data(), losses_.total.size());
        group_.sum(losses_.mse.data(), losses_.mse.size());
    });
    pass_.train ? end_step() : end_evaluation();
}

/// Of the layers, for the file's metadata; none if the log, which also has what was before a restart, was damaged.
std::map<std::string, std::string> BlockTraining::losses_of_log() const {
    const auto log = block_file(run_.options, index_, ".jsonl");
    try {
        return loss_metadata(block_.layers().begin, layer_losses(log));
    } catch (const std::exception& error) {
        spdlog::warn("{}: the feature maps will not tell their losses: {}", log.string(), error.what());
        return {};
    }
}

void BlockTraining::finish() {
    if (is_finished_) return;
    block_.parameters().restore();
    if (group_.rank() != 0) return;
    auto metadata = form_metadata(run_.form, run_.tied);
    metadata.merge(to_metadata(run_.identity));
    time_.measure(TimeSplit::files, [&] {
        metadata.merge(losses_of_log());
        write_feature_maps(block_file(run_.options, index_, ".safetensors"), named_values(block_.parameters()),
                           metadata);
        checkpoints_.finish();
    });
}

void BlockTraining::require_finite() const {
    for (std::size_t i = 0; i < losses_.total.size(); ++i)
        if (!std::isfinite(losses_.total[i]))
            fail("block {}: the loss of layer {} is {} at step {}; lower --lr, or look for values that are not "
                 "finite in {} (nothing was written for this block)",
                 index_, block_.layers().begin + static_cast<int>(i), losses_.total[i], pass_.step, run_.options.model);
}

void BlockTraining::end_step() {
    time_.measure(TimeSplit::wait, [&] { sum_gradients(block_.parameters(), arrays_); });
    keep_first_batch();
    const double norm = block_.parameters().gradient_norm();
    if (!std::isfinite(norm))
        fail("block {}: the gradient's norm is {} at step {}; lower --lr (nothing was written for this block)", index_,
             norm, pass_.step);
    progress_.update(block_.parameters(), mean(losses_.total), norm);
    pace_->advance(1);
    if (group_.rank() == 0) time_.measure(TimeSplit::files, [&] { log_step(norm); });
}

void BlockTraining::keep_first_batch() {
    if (pass_.step != 0 || run_.options.dump_gradients.empty() || group_.rank() != 0) return;
    first_ = named_gradients(block_.parameters());
    first_.push_back({losses_name, {block_.layers().begin}, losses_.total});
}

void BlockTraining::log_step(double norm) {
    const double seconds = std::chrono::duration<double>(Clock::now() - pass_start_).count();
    const double rate = static_cast<double>(pass_.batch.size()) * run_.input.length() / seconds;
    log_->write({{"step", pass_.step},
                 {"loss", mean(losses_.total)},
                 {"layer_losses", losses_.total},
                 {"lr", progress_.rate()},
                 {"grad_norm", norm},
                 {"tokens_per_second", rate}});
    if (pass_.step % run_.options.log_every == 0)
        spdlog::info("block {:2} step {:5} loss {:.6g} lr {:.3g} norm {:.3g} {:.0f} tokens/s, {} left", index_,
                     pass_.step, mean(losses_.total), progress_.rate(), norm, rate, pace_->left());
}

void BlockTraining::end_evaluation() {
    const double loss = mean(losses_.total);
    progress_.evaluated(block_.parameters(), loss);
    if (group_.rank() != 0) return;
    const double best = progress_.best();
    nlohmann::ordered_json line = {
        {"step", pass_.step}, {"eval_loss", loss}, {"eval_layer_losses", losses_.total}, {"best", best}};
    const Options& options = run_.options;
    const bool has_entropy = options.xent_factor > 0 || options.far_xent_factor > 0;
    if (has_entropy && options.layer_loss == "plain") line["eval_layer_mse"] = losses_.mse;
    log_->write(line);
    spdlog::info("block {:2} step {:5} evaluation loss {:.6g} best {:.6g}", index_, pass_.step, loss, best);
}

} // namespace lolcats
