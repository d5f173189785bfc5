#pragma once
/// Bytes of a rank's arrays in training, by what they hold. Every array of the rank is counted but the small ones:
/// norms, RoPE tables, losses.
#include "lolcats/plan.hpp"

namespace lolcats {

/// Attention transfer (stage 1).
struct TransferMemory {
    double weights;  ///< frozen
    double trained;  ///< maps and mixing factors, their gradients and moments
    double work;     ///< activations of one layer
    double products; ///< what matrix products keep beside their operands
    double stream;   ///< the residual stream of one micro-batch

    [[nodiscard]] double total() const { return weights + trained + work + products + stream; }
};

/// `layers` in `blocks` blocks, each with work arrays of its own, for options.micro_batch sequences of plan.length.
TransferMemory transfer_memory(const Plan& plan, const Options& options, int layers, int blocks);

/// LoRA (stage 2), one pipeline stage without embedding and head.
struct LoraMemory {
    double weights;  ///< frozen, the students included
    double trained;  ///< the adapter, its gradients and moments
    double work;     ///< activations of one layer and their gradients
    double products; ///< what matrix products keep beside their operands
    double kept;     ///< what entered each layer, of the micro-batches between forward and backward pass

    [[nodiscard]] double total() const { return weights + trained + work + products + kept; }
};

LoraMemory lora_memory(const Plan& plan, const Options& options, int layers, int micro_batches_in_flight);

} // namespace lolcats
