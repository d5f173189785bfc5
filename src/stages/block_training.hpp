#pragma once
/// Attention transfer of one block, fed by whoever has its input: a store (stage 1) or the stage before (streaming).
#include "lolcats/options.hpp"
#include "src/pace.hpp"
#include "src/stages/run_identity.hpp"
#include "src/stages/run_input.hpp"
#include "src/train/batches.hpp"
#include "src/train/checkpoints.hpp"
#include "src/train/metrics_log.hpp"
#include "src/train/named_arrays.hpp"
#include "src/train/progress.hpp"
#include "src/train/time_split.hpp"
#include "src/train/transfer_block.hpp"
#include "src/train/window_dropout.hpp"

#include <chrono>
#include <optional>
#include <string>

namespace lolcats {

/// What the trainings of all blocks have in common.
struct TransferRun {
    const Options& options;
    const RunInput& input;
    StudentForm form;
    bool tied;
    Arithmetic arithmetic;
    InputIdentity content;
    io::TrainingIdentity identity; ///< the same in both forms, so that each goes on with what the other left
    Batches batches;
};

/// Collective.
TransferRun prepare_transfer(const Options& options, const RunInput& input, const Communicator& world,
                             StoredStates states);

/// Gradients of the first batch before clipping, and its losses as an array that says which layer comes first.
using FirstBatch = std::vector<NamedArray<double>>;

/// Writes options.dump_gradients: /loss (mean over layers), /layer_losses [L] and one dataset a parameter, of all
/// blocks. Collective.
void write_gradients(const TransferRun& run, const Communicator& world, const FirstBatch& mine);

/// All sequences of a batch go by: the training ones of an optimiser step, or those held out, after `step` steps.
struct Pass {
    bool train;
    int step;
    Sequences batch;
};

/// Whether an earlier run has trained the block; never where gradients are asked for, which were not kept. A result of
/// another model or other tokens is an Error. Collective over the block's ranks.
bool is_finished(const TransferRun& run, int block, const Communicator& group);

class BlockTraining {
public:
    /// Goes on from the block's newest checkpoint; one that is `finished` trains no more. `group`: the ranks that share
    /// the block's batches. Collective over them, as is all below but add().
    BlockTraining(const TransferRun& run, int block, bool finished, ArrayCommunicator& group, Interrupt& interrupt,
                  TimeSplit& time);

    /// The first step this block needs; all of them are behind a finished one.
    [[nodiscard]] int start() const;

    /// Writes a checkpoint if one is due or the run `stops`.
    void before_step(bool stops);
    /// A pass: begin(), add() for each of this rank's micro-batches, end(). A block that is past it already only lets
    /// the stream through. An evaluation of an empty batch, where nothing is held out, follows the training loss.
    void begin(const Pass& pass);
    /// x[n, D] enters the block; with `hands_on` it becomes what leaves it.
    void add(const AttentionShape& shape, const Matrix<float>& x, bool hands_on);
    void end();
    /// Writes the block's file.
    void finish();

    /// What the first batch gave, if options.dump_gradients asks for it.
    FirstBatch take_first_batch() { return std::move(first_); }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] bool takes_part(const Pass& pass) const;
    void require_finite() const;
    void end_step();
    [[nodiscard]] std::map<std::string, std::string> losses_of_log() const;
    void end_evaluation();
    void keep_first_batch();
    void log_step(double norm);

    const TransferRun& run_;
    int index_;
    ArrayCommunicator& arrays_;
    const Communicator& group_;
    TimeSplit& time_;
    Progress progress_;
    TransferBlock block_;
    WindowDropout window_dropout_;
    Checkpoints checkpoints_;
    bool is_finished_;
    std::optional<MetricsLog> log_;
    FirstBatch first_;
    Pass pass_{};
    bool takes_part_ = false; ///< in this pass
    LayerLosses losses_;      ///< of this pass
    Clock::time_point pass_start_;
    std::optional<Pace> pace_; ///< from the first step on
};

} // namespace lolcats
