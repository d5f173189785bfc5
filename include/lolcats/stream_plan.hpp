#pragma once
/// What lolcats_convert, the streaming mode, will cost: pipeline bubble, bytes between ranks, memory, hours; and how a
/// measured run compares.
#include "lolcats/plan.hpp"

#include <filesystem>
#include <string>

namespace lolcats {

/// Per-rank figures are those of the most loaded rank.
struct StreamPlan {
    int ranks;
    int pipeline_ranks;
    int data_ranks;
    int layers_per_rank;
    double micro_batches; ///< that go through a pipeline in the whole run
    double bubble; ///< (S - 1) / (M + S - 1) of S stages and M micro-batches: a rank's time idle at start and end
    double bytes_between_stages; ///< of all links together
    double memory;               ///< bytes a rank needs
    double compute_hours;        ///< a rank at work
    double link_hours;           ///< a rank receiving
    double load_hours;           ///< reading weights: once, with --weights read once for every data rank
    double hours;                ///< loading, then compute and links, stretched by the bubble
};

/// A run as lolcats_convert wrote it down in WORK/transfer/run.json. Error if it is not such a file.
struct MeasuredStream {
    explicit MeasuredStream(const std::filesystem::path& file);
    /// `options` with the shape of that run in place of the planned one. What else it was run with (dtype, gemm,
    /// feature maps, validation) must be in `options`.
    [[nodiscard]] Options planned_like(Options options) const;

    int ranks;
    int pipeline_ranks;
    int block_layers;
    int length;                  ///< T
    int micro_batch;             ///< sequences at once
    double tokens;               ///< that went by, in all epochs
    double micro_batches;        ///< of a pipeline
    double bytes_between_stages; ///< of all links together
    double memory;               ///< bytes, of the rank with most
    double compute_seconds;      ///< of the rank that computed longest
    double seconds;              ///< of the whole run
};

/// Streaming with the chosen block size of `plan`.
StreamPlan plan_streaming(const Plan& plan, const Options& options);

std::string to_text(const StreamPlan& plan);

/// The measured run beside its prediction, whose FLOP/s is the measured one. `agrees` says whether bytes and memory
/// were predicted within 15 %.
std::string compare_streaming(const ModelConfig& model, const Options& options, const MeasuredStream& measured,
                              bool& agrees);

} // namespace lolcats
