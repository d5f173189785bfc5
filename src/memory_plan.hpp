#pragma once
/// Bytes of a rank's arrays, by what they hold, and how many layers' activations LoRA keeps within its limit. All
/// arrays of the rank are counted but the small ones: norms, RoPE tables, losses.
#include "lolcats/plan.hpp"

#include <algorithm>

namespace lolcats {

struct RankMemory {
    double weights = 0;   ///< frozen; in LoRA with the students, unless they are trained
    double trained = 0;   ///< parameters, their gradients and moments, and the best so far
    double work = 0;      ///< activations of one layer, and in LoRA their gradients
    double attention = 0; ///< what attention works in on a GPU's tensor cores; 0 on a host
    double products = 0;  ///< what matrix products keep beside their operands
    double stream = 0;    ///< the residual stream of one micro-batch, and of those on their way to the next stage
    double kept = 0;      ///< inputs and kept activations of layers, for the micro-batches between LoRA's two passes

    [[nodiscard]] double total() const { return weights + trained + work + attention + products + stream + kept; }
};

/// Whether a stage of the pipeline has one before it and one after it.
struct Neighbours {
    bool before = false;
    bool after = false;
};

/// Stage 0. `layers` that the rank computes (the last block of the model is not).
RankMemory teacher_memory(const Plan& plan, const Options& options, int layers, Neighbours neighbours);

/// Attention transfer (stage 1). `layers` in `blocks` blocks, each with work arrays of its own, for
/// options.micro_batch sequences of plan.length.
RankMemory transfer_memory(const Plan& plan, const Options& options, int layers, int blocks);

/// LoRA (stage 2), one pipeline stage without embedding and head. `in_flight`: micro-batches between forward and
/// backward pass.
RankMemory lora_memory(const Plan& plan, const Options& options, int layers, int in_flight);

/// How many of `layers` keep their activations from the forward to the backward pass: as many as fit in
/// options.activation_memory, for all micro-batches in flight.
int layers_kept(const Plan& plan, const Options& options, int layers, int in_flight);
/// The others, which are recomputed.
int layers_recomputed(const Plan& plan, const Options& options, int layers, int in_flight);

/// The LM head on the last stage of LoRA or evaluation.
double head_memory(const Plan& plan, const Options& options);

/// Bytes of a number of the residual stream on its way to the next stage, in stages 0 and 1, which round it.
double residual_wire_bytes(const Options& options);
/// What a stage keeps of what it sends and receives in stages 0 and 1.
double residual_link_memory(const Plan& plan, const Options& options, Neighbours neighbours);

/// One stage of the pipeline in LoRA.
struct LoraStage {
    int layers;
    int stage;
    int stages;
    int micro_batches; ///< of a batch, that go through it

    /// Micro-batches between forward and backward pass, at most (1F1B).
    [[nodiscard]] int in_flight() const { return std::min(stages - stage, micro_batches); }
};

/// Its layers, the links to its neighbours, and the head on the last one.
double lora_stage_memory(const Plan& plan, const Options& options, const LoraStage& part);

} // namespace lolcats
