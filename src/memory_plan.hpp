#pragma once
/// Bytes of a rank's arrays, by what they hold, and how many layers' activations LoRA keeps within its limit. All
/// arrays of the rank are counted but the small ones: norms, RoPE tables, losses.
#include "lolcats/plan.hpp"

#include <algorithm>

namespace lolcats {

/// Stage 0.
struct TeacherMemory {
    double weights;   ///< frozen
    double work;      ///< activations of one layer
    double attention; ///< what attention works in on a GPU's tensor cores; 0 on a host
    double products;  ///< what matrix products keep beside their operands
    double stream;    ///< the residual stream of one micro-batch, and of those on their way to the next stage

    [[nodiscard]] double total() const { return weights + work + attention + products + stream; }
};

/// `layers` that the rank computes (the last block of the model is not); `sends`: to a next stage of the pipeline.
TeacherMemory teacher_memory(const Plan& plan, const Options& options, int layers, bool sends);

/// Attention transfer (stage 1).
struct TransferMemory {
    double weights;   ///< frozen
    double trained;   ///< maps and mixing factors, their gradients and moments, and the best so far
    double work;      ///< activations of one layer
    double attention; ///< what attention works in on a GPU's tensor cores; 0 on a host
    double products;  ///< what matrix products keep beside their operands
    double stream;    ///< the residual stream of one micro-batch

    [[nodiscard]] double total() const { return weights + trained + work + attention + products + stream; }
};

/// `layers` in `blocks` blocks, each with work arrays of its own, for options.micro_batch sequences of plan.length.
TransferMemory transfer_memory(const Plan& plan, const Options& options, int layers, int blocks);

/// LoRA (stage 2), one pipeline stage without embedding and head.
struct LoraMemory {
    double weights;   ///< frozen, the students included
    double trained;   ///< the adapter (and the students), its gradients and moments, and the best so far
    double work;      ///< activations of one layer and their gradients
    double attention; ///< what attention works in on a GPU's tensor cores; 0 on a host
    double products;  ///< what matrix products keep beside their operands
    double kept;      ///< the inputs and kept activations of layers, for the micro-batches between both passes

    [[nodiscard]] double total() const { return weights + trained + work + attention + products + kept; }
};

/// `in_flight`: micro-batches between forward and backward pass.
LoraMemory lora_memory(const Plan& plan, const Options& options, int layers, int in_flight);

/// How many of `layers` keep their activations from the forward to the backward pass: as many as fit in
/// options.activation_memory, for all micro-batches in flight.
int layers_kept(const Plan& plan, const Options& options, int layers, int in_flight);
/// The others, which are recomputed.
int layers_recomputed(const Plan& plan, const Options& options, int layers, int in_flight);

/// The LM head on the last stage of LoRA or evaluation.
double head_memory(const Plan& plan, const Options& options);

/// Micro-batches on their way from a stage to a neighbour, one way.
double link_memory(const Plan& plan, const Options& options);

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
