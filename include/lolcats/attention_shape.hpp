#pragma once

#include "kernels/attention_form.hpp"
#include "lolcats/model_config.hpp"

namespace lolcats {

/// The shape of attention over B = batch sequences of T = length tokens.
inline AttentionShape attention_shape(const ModelConfig& config, int batch, int length) {
    return {.batch = batch,
            .length = length,
            .heads = config.heads,
            .kv_heads = config.kv_heads,
            .head_dim = config.head_dim};
}

} // namespace lolcats
