#pragma once
/// What the benchmark of a block is to run.
#include "lolcats/model_config.hpp"
#include "lolcats/options.hpp"

#include <algorithm>
#include <string>

namespace lolcats::bench {

struct Settings {
    std::string stage = "transfer"; ///< teacher | transfer | lora
    std::string preset = "405b";    ///< 405b | 70b | 8b | 1b, which the settings below start from
    ModelConfig model{};            ///< its number of layers is the whole model's
    int layers = 0;                 ///< k, that this GPU holds; 0: the preset's
    Options options;                ///< of the conversion: window, feature maps, LoRA, batch and micro-batch
    int steps = 2;                  ///< optimiser steps that are timed
    int square = 8192;              ///< side of the square product among those that give the peak
    bool timing_only = false;       ///< neither peaks nor split: the process's memory is that of the block
    std::string json;               ///< file for the figures

    [[nodiscard]] int stages() const { return (model.layers + layers - 1) / layers; }
    [[nodiscard]] int length() const { return options.plan_length; }
    [[nodiscard]] int micro_batches() const {
        return (options.batch_size + options.micro_batch - 1) / options.micro_batch;
    }
    /// LoRA's micro-batches between forward and backward pass, in the first stage of the pipeline.
    [[nodiscard]] int in_flight() const { return std::min(stages(), micro_batches()); }
    /// Layers whose activations LoRA keeps for the backward pass, and recomputes there.
    [[nodiscard]] int layers_kept() const;
    [[nodiscard]] int layers_recomputed() const;
};

/// Reads the command line. False if `text` (help) is all that is wanted. Throws Error for settings that make no run.
bool read_settings(int argc, char** argv, Settings& settings, std::string& text);

} // namespace lolcats::bench
