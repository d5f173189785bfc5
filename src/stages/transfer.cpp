#include "src/stages/transfer.hpp"

#include "io/array_file.hpp"
#include "io/file.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/attempt.hpp"
#include "src/stages/run_identity.hpp"
#include "src/stages/run_input.hpp"
#include "src/train/batches.hpp"
#include "src/train/checkpoints.hpp"
#include "src/train/metrics_log.hpp"
#include "src/train/named_arrays.hpp"
#include "src/train/progress.hpp"
#include "src/train/transfer_block.hpp"

#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <spdlog/spdlog.h>

namespace lolcats {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The residual stream entering a block: the token embedding for the first one, else what stage 0 stored.
class BlockInput {
public:
    BlockInput(const Options& options, const RunInput& input, const std::string& tokens_identity, int block)
        : input_(input) {
        if (block > 0)
            store_.emplace(hidden_path(options, block), hidden_store_info(options, input, tokens_identity, block));
    }

    void read(const Sequences& sequences, const Matrix<float>& x) const {
        if (!store_) return input_.embed(sequences, x);
        const auto host = Kokkos::create_mirror_view(x);
        const std::size_t size = static_cast<std::size_t>(input_.length()) * input_.config.hidden_size;
        for (std::size_t i = 0; i < sequences.size(); ++i) store_->read(sequences[i], host.data() + i * size);
        Kokkos::deep_copy(x, host);
    }

private:
    const RunInput& input_;
    std::optional<io::HiddenStoreReader> store_;
};

/// Gradients of the first batch before clipping, and its losses as an array that says which layer comes first.
using FirstBatch = std::vector<NamedArray<double>>;
const std::string losses_name = "layer_losses";

/// What the trainings of all blocks have in common.
struct TransferRun {
    const Options& options;
    const RunInput& input;
    StudentForm form;
    bool tied;
    Arithmetic arithmetic;
    std::string tokens_identity;
    io::TrainingIdentity identity;
};

std::filesystem::path block_file(const Options& options, int block, const char* extension) {
    return transfer_directory(options) / fmt::format("block_{:02}{}", block, extension);
}

std::filesystem::path state_directory(const Options& options, int block) {
    return transfer_directory(options) / "state" / fmt::format("block_{:02}", block);
}

/// Whether an earlier run has trained the block. Its gradients were not kept. Collective over the block's ranks.
bool is_finished(const TransferRun& run, int block, const Communicator& group) {
    std::int64_t finished = 0;
    if (group.rank() == 0 && run.options.dump_gradients.empty())
        finished = is_result(block_file(run.options, block, ".safetensors"), run.identity, run.options) ? 1 : 0;
    group.max(&finished, 1);
    if (finished != 0 && group.rank() == 0) {
        spdlog::info("block {:2} is trained already", block);
        remove_checkpoints(state_directory(run.options, block), run.identity);
    }
    return finished != 0;
}

/// Asked before the weights of a block are loaded, which may take long. Collective over the block's ranks.
bool has_to_stop(const Communicator& group, Interrupt& interrupt) {
    std::int64_t wanted = interrupt.is_wanted() ? 1 : 0;
    group.max(&wanted, 1);
    return wanted != 0;
}

/// Training of one block by the ranks of `group`.
class BlockTraining {
public:
    BlockTraining(const TransferRun& run, int block, const Communicator& group, Interrupt& interrupt)
        : run_(run), options_(run.options), input_(run.input), index_(block), group_(group),
          states_(options_, input_, run.tokens_identity, block), batches_(options_, input_.tokens.sequences()),
          progress_(options_, 1e-2),
          block_(input_.checkpoint, input_.config, run.form, run.tied, input_.storage, run.arithmetic,
                 input_.layout.layers_of(block), input_.shape(options_.micro_batch),
                 {options_.mse_factor, options_.xent_factor}),
          x_(uninitialized("block_input"), input_.shape(options_.micro_batch).rows(), input_.config.hidden_size),
          checkpoints_(options_, {state_directory(options_, block), run.identity, input_.layout, group.rank() == 0},
                       group, interrupt) {
        block_.students().initialize(options_.feature_map_init, options_.seed);
        if (!options_.init_feature_maps.empty()) block_.students().load(FeatureMapFiles(options_.init_feature_maps));
        const std::int64_t log_bytes = checkpoints_.resume(block_.parameters(), progress_);
        if (group.rank() == 0) log_.emplace(block_file(options_, block, ".jsonl"), log_bytes);
    }

    /// Trains and writes the block's file. False if it was stopped before the end.
    bool run() {
        const bool finished = progress_.run(
            batches_, block_.parameters(), [&](int step) { train_step(step); },
            [&](int step) { return evaluate(step); },
            [&] { return checkpoints_.go_on(block_.parameters(), progress_, log_ ? &*log_ : nullptr); });
        if (finished && group_.rank() == 0) {
            write();
            checkpoints_.finish();
        }
        return finished;
    }

    /// What the first batch gave.
    FirstBatch take_first_batch() { return std::move(first_); }

private:
    /// Layer losses of a batch, the same on all ranks of the group.
    std::vector<double> pass(const Sequences& batch, bool train) {
        std::vector<double> losses(block_.layers().size(), 0.0);
        for (const auto& sequences : micro_batches(batch, options_.micro_batch, group_.size(), group_.rank())) {
            const AttentionShape shape = input_.shape(static_cast<int>(sequences.size()));
            const Matrix<float> x = first_rows(x_, shape.rows());
            states_.read(sequences, x);
            block_.run(shape, x, static_cast<double>(batch.size()), train, losses);
        }
        group_.sum(losses.data(), losses.size());
        return losses;
    }

    void require_finite(const std::vector<double>& losses, int step) const {
        for (std::size_t i = 0; i < losses.size(); ++i)
            if (!std::isfinite(losses[i]))
                fail("block {}: the loss of layer {} is {} at step {}; lower --lr, or look for values that are not "
                     "finite in {} (nothing was written for this block)",
                     index_, block_.layers().begin + static_cast<int>(i), losses[i], step, options_.model);
    }

    void train_step(int step) {
        const auto start = Clock::now();
        const Sequences batch = batches_.at(step);
        block_.parameters().zero_gradients();
        const auto losses = pass(batch, true);
        require_finite(losses, step);
        block_.parameters().sum_gradients(group_);
        if (step == 0 && !options_.dump_gradients.empty() && group_.rank() == 0) {
            first_ = named_gradients(block_.parameters());
            first_.push_back({losses_name, {block_.layers().begin}, losses});
        }
        const double norm = block_.parameters().gradient_norm();
        if (!std::isfinite(norm))
            fail("block {}: the gradient's norm is {} at step {}; lower --lr (nothing was written for this block)",
                 index_, norm, step);
        progress_.update(block_.parameters(), mean(losses), norm);
        if (group_.rank() == 0) log_step(step, losses, norm, batch.size(), seconds_since(start));
    }

    void log_step(int step, const std::vector<double>& losses, double norm, std::size_t sequences, double seconds) {
        const double rate = static_cast<double>(sequences) * input_.length() / seconds;
        log_->write({{"step", step},
                     {"loss", mean(losses)},
                     {"layer_losses", losses},
                     {"lr", progress_.rate()},
                     {"grad_norm", norm},
                     {"tokens_per_second", rate}});
        if (step % options_.log_every == 0)
            spdlog::info("block {:2} step {:5} loss {:.6g} lr {:.3g} norm {:.3g} {:.0f} tokens/s", index_, step,
                         mean(losses), progress_.rate(), norm, rate);
    }

    double evaluate(int step) {
        const auto losses = pass(batches_.validation(), false);
        require_finite(losses, step);
        const double loss = mean(losses);
        if (group_.rank() != 0) return loss;
        const double best = std::min(loss, progress_.best());
        log_->write({{"step", step}, {"eval_loss", loss}, {"eval_layer_losses", losses}, {"best", best}});
        spdlog::info("block {:2} step {:5} evaluation loss {:.6g} best {:.6g}", index_, step, loss, best);
        return loss;
    }

    void write() const {
        auto metadata = form_metadata(run_.form, run_.tied);
        metadata.merge(to_metadata(run_.identity));
        write_feature_maps(block_file(options_, index_, ".safetensors"), named_values(block_.parameters()), metadata);
    }

    const TransferRun& run_;
    const Options& options_;
    const RunInput& input_;
    int index_;
    const Communicator& group_;
    BlockInput states_;
    Batches batches_;
    Progress progress_;
    TransferBlock block_;
    Matrix<float> x_;
    Checkpoints checkpoints_;
    std::optional<MetricsLog> log_;
    FirstBatch first_;
};

/// /loss (mean over layers), /layer_losses [L] and one dataset a parameter, of all blocks. Collective.
void write_gradients(const Options& options, const RunInput& input, const Communicator& world, const FirstBatch& mine) {
    const FirstBatch all = gather(world, mine);
    if (world.rank() != 0) return;
    io::ArrayFile file(options.dump_gradients);
    std::vector<double> losses(input.config.layers);
    for (const auto& array : all) {
        if (array.name == losses_name)
            std::copy(array.values.begin(), array.values.end(), losses.begin() + array.shape.front());
        else
            file.write(array.name, array.shape, array.values.data());
    }
    const double loss = mean(losses);
    file.write("loss", {}, &loss);
    file.write(losses_name, {input.config.layers}, losses.data());
    file.close();
}

/// Collective.
TransferRun prepare(const Options& options, const RunInput& input, const Communicator& world) {
    std::optional<FeatureMapFiles> start;
    if (!options.init_feature_maps.empty()) start.emplace(options.init_feature_maps);
    TransferRun run{options,
                    input,
                    student_form(options, input.config, start ? &*start : nullptr),
                    are_maps_tied(options, start ? &*start : nullptr),
                    settle_arithmetic(options, world),
                    tokens_identity(input, world),
                    {}};
    const std::string maps = world.rank() == 0 && start ? content_identity(start->files()) : "none";
    run.identity = IdentityBuilder(options, input, run.tokens_identity, "lolcats_block")
                       .with_options({"hidden-dtype", "mse-factor", "xent-factor"})
                       .with(form_metadata(run.form, run.tied))
                       .with({{"block-layers", std::to_string(input.layout.block_layers)},
                              {"gemm", name_of(run.arithmetic)},
                              {"init-feature-maps", world.broadcast(maps, 0)}})
                       .build();
    return run;
}

} // namespace

void transfer_attention(const Options& options, const Communicator& world) {
    const RunInput input(options);
    const Attempt attempt(options, "lolcats_block", world);
    Interrupt interrupt(options, world);
    const TransferRun run = prepare(options, input, world);
    const int blocks = input.layout.blocks;
    const int groups = std::min(blocks, world.size());
    const Communicator group = world.split(world.rank() % groups, world.rank());
    if (world.rank() == 0) io::create_directories(transfer_directory(options));
    world.barrier();

    FirstBatch first;
    bool stopped = false;
    for (int block = world.rank() % groups; block < blocks && !stopped; block += groups) {
        if (is_finished(run, block, group)) continue;
        stopped = has_to_stop(group, interrupt);
        if (stopped) break;
        BlockTraining training(run, block, group, interrupt);
        stopped = !training.run();
        auto of_block = training.take_first_batch();
        std::move(of_block.begin(), of_block.end(), std::back_inserter(first));
    }
    if (interrupt.finish(stopped)) return;
    if (!options.dump_gradients.empty()) write_gradients(options, input, world, first);
}

} // namespace lolcats
