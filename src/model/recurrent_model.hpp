#pragma once
/// The model at work: tokens of a sequence come in pieces (a prompt) and then one by one, and each layer keeps what it
/// needs of those before (kernels/attention_state.hpp). Several sequences are under way at once, each in a slot.
///
/// A sequence gets the same numbers whatever the others do: pieces are computed a sequence at a time, and steps of
/// several sequences by products whose rows do not depend on each other.
#include "kernels/attention_state.hpp"
#include "src/model/decoder_layer.hpp"
#include "src/model/lm_head.hpp"

#include <optional>
#include <span>
#include <vector>

namespace lolcats {

/// A model of all layers, teacher or adapted, as loaded.
template <class Real>
struct RecurrentWeights {
    std::vector<LayerWeights<Real>> layers;
    std::vector<AdaptedLayer<Real>> adapted; ///< one a layer; without arrays for the teacher
    HeadWeights<Real> head;
    std::optional<StudentForm> student; ///< none: the teacher
    LoraForm lora;
};

/// How much there is room for.
struct RecurrentRoom {
    int slots;     ///< sequences at once
    int piece;     ///< tokens of a sequence at once
    int positions; ///< tokens of a sequence in all, which only the teacher's cache asks for
};

template <class Real>
class RecurrentModel {
public:
    RecurrentModel(const ModelConfig& config, RecurrentWeights<Real> weights, const RecurrentRoom& room,
                   Arithmetic arithmetic);

    /// Gives a slot to a sequence that stands after `position` tokens, of which the state still knows nothing.
    void begin(int slot, int position = 0);
    /// x[T, D], T at most room.piece, the embeddings of the sequence's next tokens, becomes the residual stream after
    /// the last layer.
    void take(int slot, const Matrix<Real>& x);
    /// The same for one token of each of different slots: x[B, D], B at most room.slots.
    void step(std::span<const int> slots, const Matrix<Real>& x);
    /// Of rows of a residual stream, at most LmHead::rows_at_once: [B, V], until the next call.
    Matrix<Real> logits(const Matrix<Real>& x) { return head_.logits(x); }

    [[nodiscard]] int position(int slot) const { return positions_.at(slot); }
    /// Layer by layer, to be saved and restored.
    [[nodiscard]] const std::vector<AttentionState<Real>>& states() const { return states_; }
    /// Bytes of all layers' states of one slot.
    [[nodiscard]] std::size_t state_bytes() const;

private:
    void set_rope(const Vector<int>& positions, int rows) { set_positions(frequencies_, positions, rows, rope_); }
    template <class Attend>
    void run_layers(Gemm<Real>& gemm, const AttentionShape& shape, const LayerActivations<Real>& act,
                    const Matrix<Real>& x, const Attend& attend);

    ModelConfig config_;
    RecurrentWeights<Real> weights_;
    RecurrentRoom room_;
    Gemm<Real> piece_gemm_;
    Gemm<Real> step_gemm_;
    LmHead<Real> head_;
    std::vector<AttentionState<Real>> states_;
    std::vector<int> positions_; ///< [slots]
    Vector<double> frequencies_; ///< [d/2]
    RopeTable<Real> rope_;       ///< of the rows under way
    Vector<int> piece_positions_;
    StepRows rows_;
    LayerActivations<Real> piece_activations_; ///< of room.piece rows
    LayerActivations<Real> step_activations_;  ///< of room.slots rows
    KeyRun<Real> run_;
    LoraScratch<Real> lora_scratch_;
};

} // namespace lolcats
