#pragma once
/// Shapes and kinds of attention, in plain C++: what the portable kernels and their CUDA twins share.

#include "kernels/feature_maps.hpp"
#include "kernels/function.hpp"

namespace lolcats {

/// Shape of a batch of attention heads. Queries and outputs are [batch * length, heads * head_dim], keys and values
/// [batch * length, kv_heads * head_dim]; query head h reads key/value head h / group().
struct AttentionShape {
    int batch;    ///< B
    int length;   ///< T
    int heads;    ///< H
    int kv_heads; ///< H_kv
    int head_dim; ///< d

    LOLCATS_FUNCTION int group() const { return heads / kv_heads; }
    [[nodiscard]] int rows() const { return batch * length; }
};

enum class NearKeys {
    terrace, ///< this chunk and the one before; all earlier chunks are far
    sliding, ///< the last w keys; all earlier keys are far
    none     ///< no near keys: plain linear attention, normalised by normalizer_floor + sum weight
};

/// Throws Error for a name other than terrace, sliding, none.
NearKeys near_keys(const std::string& name);
const char* near_keys_name(NearKeys near);

/// What every layer's student has in common.
struct StudentForm {
    NearKeys near;
    int window; ///< w, also the chunk length
    FeatureMapKind map;
    int feature_dim; ///< f
    bool affine;     ///< lambda = 1 - gamma
};

} // namespace lolcats
