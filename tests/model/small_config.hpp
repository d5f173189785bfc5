#pragma once
/// A model small enough for finite differences and for every split of a sequence.
#include "lolcats/model_config.hpp"

namespace lolcats::test {

inline ModelConfig small_config(int layers) {
    ModelConfig config{};
    config.hidden_size = 12;
    config.intermediate_size = 10;
    config.layers = layers;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 6;
    config.vocab_size = 11;
    config.rms_norm_eps = 1e-5;
    config.rope_theta = 100;
    return config;
}

} // namespace lolcats::test
