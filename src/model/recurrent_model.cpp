#include "src/model/recurrent_model.hpp"

#include "lolcats/error.hpp"

#include <algorithm>

namespace lolcats {

namespace {

template <class Real>
AttentionState<Real> new_state(const ModelConfig& config, const std::optional<StudentForm>& form,
                               const RecurrentRoom& room) {
    const AttentionShape shape = attention_shape(config, room.slots, 1);
    if (!form) return {shape, room.slots, 0, room.positions};
    return {shape, room.slots, features(form->map, form->feature_dim), ring_places(form->near, form->window)};
}

Vector<double> frequencies_on_device(const ModelConfig& config) {
    const auto frequencies = rope_frequencies(rope_form(config));
    Vector<double> result("frequencies", frequencies.size());
    const auto host = Kokkos::create_mirror_view(result);
    std::copy(frequencies.begin(), frequencies.end(), host.data());
    Kokkos::deep_copy(result, host);
    return result;
}

template <class Real>
RopeTable<Real> empty_rope(const ModelConfig& config, int rows) {
    RopeTable<Real> table;
    table.cosine = Matrix<Real>("rope_cosine", rows, config.head_dim / 2);
    table.sine = Matrix<Real>("rope_sine", rows, config.head_dim / 2);
    return table;
}

template <class Real>
KeyRun<Real> new_run(const ModelConfig& config, const std::optional<StudentForm>& form, int piece) {
    if (!form) return {};
    const int most = ring_places(form->near, form->window) + piece;
    return {Tensor3<Real>("run_keys", config.kv_heads, most, config.head_dim),
            Tensor3<Real>("run_values", config.kv_heads, most, config.head_dim)};
}

/// `value(i)` for the first `count` elements.
template <class Value>
void set(const Vector<int>& values, int count, const Value& value) {
    const auto host = Kokkos::create_mirror_view(values);
    for (int i = 0; i < count; ++i) host(i) = value(i);
    Kokkos::deep_copy(Execution(), values, host);
    Kokkos::fence("the host's copy may go");
}

} // namespace

template <class Real>
RecurrentModel<Real>::RecurrentModel(const ModelConfig& config, RecurrentWeights<Real> weights,
                                     const RecurrentRoom& room, Arithmetic arithmetic)
    : config_(config), weights_(std::move(weights)), room_(room), piece_gemm_(arithmetic),
      step_gemm_(arithmetic, RowCount::few), head_(config_, weights_.head, step_gemm_), positions_(room.slots),
      frequencies_(frequencies_on_device(config)), rope_(empty_rope<Real>(config, std::max(room.slots, room.piece))),
      piece_positions_("piece_positions", room.piece), rows_{Vector<int>("step_slots", room.slots),
                                                             Vector<int>("step_positions", room.slots)},
      piece_activations_(config, attention_shape(config, 1, room.piece)),
      step_activations_(config, attention_shape(config, room.slots, 1)),
      run_(new_run<Real>(config, weights_.student, room.piece)) {
    for (std::size_t i = 0; i < weights_.layers.size(); ++i)
        states_.push_back(new_state<Real>(config, weights_.student, room));
    if (weights_.lora.rank > 0)
        lora_scratch_ = LoraScratch<Real>(weights_.lora, std::max(room.slots, room.piece),
                                          std::max(config.hidden_size, config.query_size()));
}

template <class Real>
void RecurrentModel<Real>::begin(int slot, int position) {
    for (const auto& state : states_) state.clear(slot);
    positions_.at(slot) = position;
}

template <class Real>
template <class Attend>
void RecurrentModel<Real>::run_layers(Gemm<Real>& gemm, const AttentionShape& shape, const LayerActivations<Real>& act,
                                      const Matrix<Real>& x, const Attend& attend) {
    const LayerContext<Real> context{config_, rope_, gemm};
    const AttentionShape one_sequence = attention_shape(config_, 1, shape.rows()); // rope_ has a row for each of x
    const DropoutStreams no_dropout;
    const LoraContext<Real> lora{weights_.lora, no_dropout, 1, 0};
    std::size_t i = 0;
    const AddUpdate<Real> add_update = [&](Projection projection, const Matrix<Real>& in, const Matrix<Real>& out) {
        add_low_rank(gemm, lora, weights_.adapted[i].lora[projection], in, out, lora_scratch_);
    };
    for (; i < weights_.layers.size(); ++i) {
        const LayerWeights<Real>& weights = weights_.layers[i];
        attention_inputs(context, one_sequence, weights, x, act, add_update);
        attend(i, act);
        add_update(o_proj, act.y, x);
        finish_layer(context, weights, act, x);
    }
}

template <class Real>
void RecurrentModel<Real>::take(int slot, const Matrix<Real>& x) {
    const int count = static_cast<int>(x.extent(0));
    const int position = positions_.at(slot);
    if (count > room_.piece || (!weights_.student && position + count > room_.positions))
        fail("{} tokens after {} where there is room for {} at once and {} in all: a bug, please report it", count,
             position, room_.piece, room_.positions);
    const AttentionShape shape = attention_shape(config_, 1, count);
    set(piece_positions_, count, [&](int i) { return position + i; });
    set_rope(piece_positions_, count);
    run_layers(piece_gemm_, shape, for_shape(piece_activations_, shape), x,
               [&](std::size_t layer, const LayerActivations<Real>& act) {
                   if (weights_.student)
                       continue_student_attention(shape, {*weights_.student, weights_.adapted[layer].student},
                                                  act.inputs(), states_[layer], {slot, position}, run_, act.outputs());
                   else
                       continue_softmax_attention(shape, act.inputs(), states_[layer], {slot, position}, act.outputs());
               });
    positions_[slot] += count;
}

template <class Real>
void RecurrentModel<Real>::step(std::span<const int> slots, const Matrix<Real>& x) {
    const int count = static_cast<int>(slots.size());
    const AttentionShape shape = attention_shape(config_, count, 1);
    set(rows_.slots, count, [&](int i) { return slots[i]; });
    set(rows_.positions, count, [&](int i) { return positions_.at(slots[i]); });
    set_rope(rows_.positions, count);
    run_layers(step_gemm_, shape, for_shape(step_activations_, shape), x,
               [&](std::size_t layer, const LayerActivations<Real>& act) {
                   if (weights_.student)
                       step_student_attention(shape, {*weights_.student, weights_.adapted[layer].student}, act.inputs(),
                                              states_[layer], rows_, act.y);
                   else
                       step_softmax_attention(shape, act.inputs(), states_[layer], rows_, act.y);
               });
    for (const int slot : slots) ++positions_[slot];
}

template <class Real>
std::size_t RecurrentModel<Real>::state_bytes() const {
    std::size_t elements = 0;
    for (const auto& state : states_)
        elements += state.sums.size() + state.feature_sums.size() + state.keys.size() + state.values.size();
    return elements / room_.slots * sizeof(Real);
}

template class RecurrentModel<float>;
template class RecurrentModel<double>;

} // namespace lolcats
