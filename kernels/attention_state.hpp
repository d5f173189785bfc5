#pragma once
/// The recurrent state of one layer's attention during decoding, for several sequences.
///
/// A student's state has a constant size: sums over the far keys, which have been folded into it, and the near keys
/// themselves in a ring. After n tokens the ring holds the keys from first_kept(n) on; the token after them folds those
/// that leave: a whole chunk at a time for the terrace, one key for the sliding window, its own key where there are no
/// near ones. The teacher folds nothing, and its ring has a place for every key. Keys are kept after RoPE: positions
/// cannot change later.
#include "kernels/attention_arrays.hpp"
#include "kernels/views.hpp"

#include <algorithm>

namespace lolcats {

template <class T>
using Tensor4 = Kokkos::View<T****, Kokkos::LayoutRight>;

/// The first key that is not folded after `tokens` tokens.
KOKKOS_INLINE_FUNCTION int first_kept(NearKeys near, int window, int tokens) {
    if (near == NearKeys::none) return tokens;
    const int first = near == NearKeys::sliding ? tokens - window : ((tokens - 1) / window - 1) * window;
    return first > 0 && tokens > 0 ? first : 0;
}

/// Places of a student's ring.
inline int ring_places(NearKeys near, int window) {
    return near == NearKeys::terrace ? 2 * window : near == NearKeys::sliding ? window : 0;
}

/// The state of one layer, a slot for each sequence. Key j is at place j % places.
template <class Real>
struct AttentionState {
    Tensor4<Real> sums;         ///< [slots, H, d', d], sum of phi_k(k_j) v_j^T; empty for the teacher
    Tensor3<Real> feature_sums; ///< [slots, H, d'], sum of phi_k(k_j)
    Tensor4<Real> keys;         ///< [slots, H_kv, places, d]
    Tensor4<Real> values;       ///< [slots, H_kv, places, d]

    AttentionState() = default;
    /// `features` 0: the teacher's.
    AttentionState(const AttentionShape& shape, int slots, int features, int places);

    [[nodiscard]] KOKKOS_INLINE_FUNCTION int places() const { return static_cast<int>(keys.extent(2)); }
    /// Readies a slot for a new sequence. The teacher reads no key that this sequence has not written: nothing to do.
    void clear(int slot) const;
};

/// The rows of a decoding step, one token of each of B sequences.
struct StepRows {
    Vector<int> slots;     ///< [B], where each sequence's state is
    Vector<int> positions; ///< [B], tokens before each
};

/// Where a prefill goes on.
struct SequencePlace {
    int slot;
    int position; ///< tokens that the sequence has had
};

/// Scratch of a continued prefill: a sequence's kept keys, and the new ones after them.
template <class Real>
struct KeyRun {
    Tensor3<Real> keys;   ///< [H_kv, at least kept + T, d]
    Tensor3<Real> values; ///< [H_kv, at least kept + T, d]
};

/// Attention of T = shape.length more tokens of one sequence, and the update of its state; shape.batch is 1. The
/// numbers are those of student_attention() over all tokens at once.
template <class Real>
void continue_student_attention(const AttentionShape& shape, const Student<Real>& student,
                                const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
                                const SequencePlace& place, const KeyRun<Real>& run,
                                const AttentionOutputs<Real>& outputs);

/// The same for one more token of each of shape.batch sequences; shape.length is 1. y: [B, H d].
template <class Real>
void step_student_attention(const AttentionShape& shape, const Student<Real>& student,
                            const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
                            const StepRows& rows, const Matrix<Real>& y);

/// As continue_student_attention, for the teacher.
template <class Real>
void continue_softmax_attention(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                                const AttentionState<Real>& state, const SequencePlace& place,
                                const AttentionOutputs<Real>& outputs);

/// As step_student_attention, for the teacher.
template <class Real>
void step_softmax_attention(const AttentionShape& shape, const AttentionInputs<Real>& inputs,
                            const AttentionState<Real>& state, const StepRows& rows, const Matrix<Real>& y);

/// Writes keys and values `first_row` .. T - 1 to the ring of a slot as those from position + first_row on.
template <class Real>
void keep_keys(const AttentionShape& shape, const AttentionInputs<Real>& inputs, int first_row,
               const AttentionState<Real>& state, const SequencePlace& place);

/// Writes the one key of each row to its ring.
template <class Real>
void keep_step_keys(const AttentionShape& shape, const AttentionInputs<Real>& inputs, const AttentionState<Real>& state,
                    const StepRows& rows);

} // namespace lolcats
