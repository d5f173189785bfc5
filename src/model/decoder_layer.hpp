#pragma once
/// One decoder layer: RMSNorm, projections, RoPE, attention, o projection, residual, RMSNorm, SwiGLU MLP, residual.
///
/// The steps are apart so that stage 1 can set the student's attention beside the teacher's between them.
#include "kernels/branch_attention.hpp"
#include "lolcats/model.hpp"
#include "src/model/lora.hpp"

#include <functional>
#include <map>
#include <optional>

namespace lolcats {

/// What all layers of a model compute with.
template <class Real>
struct LayerContext {
    const ModelConfig& config;
    const RopeTable<Real>& rope;
    Gemm<Real>& gemm;
};

/// The adapted model's additions to a layer: the student in place of softmax attention, and low-rank updates.
template <class Real>
struct AdaptedLayer {
    StudentParameters<Real> student;
    StudentGradientSums student_gradients; ///< empty arrays: frozen
    LayerLora<Real> lora;
    std::uint64_t index = 0; ///< layer number, for the random streams
    bool softmax = false;    ///< the layer keeps its softmax attention, and the student is idle
};

/// Sums of AttentionMass over the queries of a layer that have far keys.
struct MassSum {
    double far = 0;
    double far_softmax = 0;
    double queries = 0;
};

/// What a layer's backward pass takes from its forward pass.
template <class Real>
struct LayerRecord {
    Matrix<Real> entered;        ///< [n, D], the residual stream before the layer
    LayerActivations<Real> kept; ///< empty: recomputed, unless no other layer ran since

    [[nodiscard]] bool keeps_activations() const { return kept.q.extent(0) > 0; }
};

/// Whether a backward pass goes on below. Below the model's first layer are the embeddings, which are frozen.
enum class InputGradient { wanted, unused };

/// Scratch of the adapted layer's backward pass, n rows.
template <class Real>
struct LayerGradients {
    Matrix<Real> narrow;                  ///< [n, D]
    Matrix<Real> middle;                  ///< [n, D], gradient of the residual stream between attention and MLP
    Matrix<Real> wide;                    ///< [n, F]
    Matrix<Real> dy;                      ///< [n, H d]
    Matrix<Real> dk;                      ///< [n, H_kv d]
    Matrix<Real> dv;                      ///< [n, H_kv d]
    AttentionInputGradients<Real> inputs; ///< [n, H d] each
    StudentGradients<Real> student;       ///< [B H, ...], none if the maps are frozen

    LayerGradients() = default;
    LayerGradients(const ModelConfig& config, const AttentionShape& shape);
};

/// Adds to `out` what a layer's low-rank update of the projection makes of `in`.
template <class Real>
using AddUpdate = std::function<void(Projection projection, const Matrix<Real>& in, const Matrix<Real>& out)>;

/// Fills q, k, v of `act` from the residual stream x[n, D]. With `add_update` the projections are adapted, and
/// act.input_normed holds their input afterwards.
template <class Real>
void attention_inputs(const LayerContext<Real>& context, const AttentionShape& shape, const LayerWeights<Real>& weights,
                      const Matrix<Real>& x, const LayerActivations<Real>& act, const AddUpdate<Real>& add_update = {});

/// The teacher's layer after its attention: x becomes the residual stream that leaves the layer. Overwrites act.middle.
template <class Real>
void finish_layer(const LayerContext<Real>& context, const LayerWeights<Real>& weights,
                  const LayerActivations<Real>& act, const Matrix<Real>& x);

/// In stages 0 and 1 the residual stream is rounded to bf16 after every layer, unless weights are f32: so it can be
/// stored in bf16 at any layer, and where blocks begin makes no difference.
void round_residual(Storage storage, const Matrix<float>& x);

/// The whole layer with its softmax attention.
template <class Real>
void teacher_layer(const LayerContext<Real>& context, const AttentionShape& shape, const LayerWeights<Real>& weights,
                   const LayerActivations<Real>& act, const Matrix<Real>& x);

template <class Real>
class AdaptedDecoder {
public:
    AdaptedDecoder(const LayerContext<Real>& context, const AttentionShape& largest, const StudentForm& form,
                   const LoraForm& lora);

    /// x[n, D] passes through the layer.
    void forward(const AttentionShape& shape, const LayerWeights<Real>& weights, const AdaptedLayer<Real>& layer,
                 const DropoutStreams& streams, const Matrix<Real>& x);
    /// The same, with a backward pass to follow from the record.
    void forward(const AttentionShape& shape, const LayerWeights<Real>& weights, const AdaptedLayer<Real>& layer,
                 const DropoutStreams& streams, const Matrix<Real>& x, const LayerRecord<Real>& record);

    /// Recomputes the layer from what entered it, unless its activations are still there, turns dx[n, D], the gradient
    /// of what left it, into that of what entered, if wanted, and adds to the gradients the layer keeps. Overwrites the
    /// record.
    void backward(const AttentionShape& shape, const LayerWeights<Real>& weights, const AdaptedLayer<Real>& layer,
                  const DropoutStreams& streams, const LayerRecord<Real>& record, const Matrix<Real>& dx,
                  InputGradient entered = InputGradient::wanted);

    /// For a record of the largest shape: what no backward pass reads is shared with all others.
    [[nodiscard]] LayerActivations<Real> activations_to_keep() const;

    /// What the students compute with from now on: near keys and window may differ from those they were made with.
    void set_form(const StudentForm& form) { form_ = form; }
    /// From now on forward() computes with a part of the student's attention, and adds up where it goes.
    void take_apart(const BranchChoice& choice);
    /// By layer number.
    [[nodiscard]] const std::map<int, MassSum>& attention_mass() const { return mass_sums_; }

private:
    void attend(const AttentionShape& shape, const AdaptedLayer<Real>& layer, const LayerActivations<Real>& act);
    void attend_in_part(const AttentionShape& shape, const AdaptedLayer<Real>& layer,
                        const LayerActivations<Real>& act);
    void run_to_middle(const AttentionShape& shape, const LayerWeights<Real>& weights, const AdaptedLayer<Real>& layer,
                       const DropoutStreams& streams, const Matrix<Real>& x, const LayerActivations<Real>& act);
    [[nodiscard]] LayerActivations<Real> activations_of(const AttentionShape& shape,
                                                        const LayerRecord<Real>& record) const;
    void allocate_gradients();
    void mlp_backward(const LayerWeights<Real>& weights, const LayerActivations<Real>& act, const Matrix<Real>& dx);
    void attention_backward(const AttentionShape& shape, const LayerWeights<Real>& weights,
                            const AdaptedLayer<Real>& layer, const DropoutStreams& streams,
                            const LayerActivations<Real>& act, const Matrix<Real>& narrow);
    void student_backward(const AttentionShape& shape, const AdaptedLayer<Real>& layer,
                          const LayerActivations<Real>& act, const Matrix<Real>& dy,
                          const AttentionInputGradients<Real>& inputs);
    LoraContext<Real> lora_context(const AttentionShape& shape, const AdaptedLayer<Real>& layer, Projection projection,
                                   const DropoutStreams& streams) const;

    LayerContext<Real> context_;
    StudentForm form_;
    LoraForm lora_;
    LayerActivations<Real> activations_;
    LayerGradients<Real> gradients_; ///< allocated when first needed
    const Real* held_ = nullptr;     ///< what entered the layer whose activations activations_ has
    LoraScratch<Real> lora_scratch_;
    AttentionShape largest_;
    std::optional<BranchChoice> choice_;
    AttentionMass<Real> mass_;
    std::map<int, MassSum> mass_sums_;
};

/// The views of the first rows that a micro-batch of this shape uses.
template <class Real>
LayerActivations<Real> for_shape(const LayerActivations<Real>& act, const AttentionShape& shape);

/// Adds one micro-batch's gradients to the sums over the batch, sequence by sequence.
template <class Real>
void add_gradients(const AttentionShape& shape, const StudentGradients<Real>& gradients,
                   const StudentGradientSums& sums);

} // namespace lolcats
