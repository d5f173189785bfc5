#pragma once
/// The map: every weight, trained parameter and activation of the program, with its shape.
///
/// L layers, width D, H query heads on H_kv key/value heads of dimension d, MLP width F, vocabulary V, feature width f,
/// LoRA rank r; a micro-batch of B sequences of T tokens has n = B T rows.
#include "kernels/attention_arrays.hpp"
#include "kernels/gemm.hpp"
#include "kernels/rope.hpp"
#include "kernels/views.hpp"
#include "lolcats/attention_shape.hpp"
#include "lolcats/model_config.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace lolcats {

/// The type frozen matrices are kept in. Activations are not; but with bf16 and fp8, stages 0 and 1 round the residual
/// stream to bf16 after every layer.
enum class Storage {
    full,
    bf16,
    fp8 ///< E4M3, one scale for each output (kernels/scaled_float8.hpp); the LM head and the embedding are in bf16
};

/// Frozen weights of one decoder layer.
template <class Real>
struct LayerWeights {
    Vector<Real> input_norm;          ///< [D]
    Vector<Real> post_attention_norm; ///< [D]
    Weight<Real> q;                   ///< [H d, D]
    Weight<Real> k;                   ///< [H_kv d, D]
    Weight<Real> v;                   ///< [H_kv d, D]
    Weight<Real> o;                   ///< [D, H d]
    Weight<Real> gate;                ///< [F, D]
    Weight<Real> up;                  ///< [F, D]
    Weight<Real> down;                ///< [D, F]
};

/// Frozen weights after the last layer.
template <class Real>
struct HeadWeights {
    Vector<Real> norm;    ///< [D]
    Weight<Real> lm_head; ///< [V, D]; the embedding where the two are tied
};

/// Sums of the gradients of one layer's student over the sequences of a batch, in double so that their order hardly
/// matters.
struct StudentGradientSums {
    Vector<double> q_map;          ///< [H d f]
    Vector<double> k_map;          ///< [H d f]; the same array as q_map where the maps are tied
    Vector<double> q_bias;         ///< [H]
    Vector<double> k_bias;         ///< [H]
    Vector<double> window_factors; ///< [H]
};

enum Projection { q_proj, k_proj, v_proj, o_proj };
inline constexpr std::array<const char*, 4> projection_names = {"q_proj", "k_proj", "v_proj", "o_proj"};

/// One low-rank update, y += scale * dropout(x) A^T B^T (LoRA; Hu et al. 2021, arXiv 2106.09685); there is none if the
/// arrays are empty.
template <class Real>
struct LowRank {
    Matrix<Real> a;             ///< [r, inputs]
    Matrix<Real> b;             ///< [outputs, r]
    Vector<double> a_gradients; ///< [r inputs]; empty where nothing is trained
    Vector<double> b_gradients; ///< [outputs r]

    [[nodiscard]] bool exists() const { return a.extent(0) > 0; }
};

template <class Real>
using LayerLora = std::array<LowRank<Real>, 4>; ///< by Projection

/// What low-rank updates have in common.
struct LoraForm {
    int rank = 0;
    double scale = 0; ///< alpha / r
    double dropout = 0;
};

/// The random stream of each sequence of a micro-batch; if empty, dropout is off.
using DropoutStreams = std::vector<std::uint64_t>;

/// Activations of one layer and one micro-batch, reused by every layer. n rows.
template <class Real>
struct LayerActivations {
    Matrix<Real> input_normed; ///< [n, D]
    Matrix<Real> q;            ///< [n, H d], after RoPE
    Matrix<Real> k;            ///< [n, H_kv d], after RoPE
    Matrix<Real> v;            ///< [n, H_kv d]
    Matrix<Real> y;            ///< [n, H d], attention output before the o projection
    Matrix<Real> statistics;   ///< [B H, T]: log_sum of the teacher's attention, or normalizer of the student's
    Matrix<Real> middle;       ///< [n, D], residual stream between attention and MLP
    Matrix<Real> mlp_normed;   ///< [n, D]
    Matrix<Real> gate;         ///< [n, F]
    Matrix<Real> up;           ///< [n, F]

    LayerActivations() = default;
    LayerActivations(const ModelConfig& config, const AttentionShape& shape);

    /// What the layer's attention reads and writes.
    [[nodiscard]] AttentionInputs<Real> inputs() const { return {q, k, v}; }
    [[nodiscard]] AttentionOutputs<Real> outputs() const { return {y, statistics}; }
};

/// How the model rotates queries and keys.
inline RopeForm rope_form(const ModelConfig& config) {
    return {config.head_dim, config.rope_theta, config.rope_scaling};
}

} // namespace lolcats
