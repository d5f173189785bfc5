#include "src/model/decoder_layer.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/softmax_attention.hpp"
#include "kernels/swiglu.hpp"

#include <algorithm>
#include <numeric>

namespace lolcats {

namespace {

template <class Real>
void mlp_forward(const LayerContext<Real>& context, const LayerWeights<Real>& weights,
                 const LayerActivations<Real>& act) {
    const auto normalize = [&](const auto& out) {
        rms_norm(act.middle, weights.post_attention_norm, context.config.rms_norm_eps, out);
    };
    context.gemm.linear_of(act.mlp_normed, normalize, {{weights.gate, act.gate}, {weights.up, act.up}});
}

/// x becomes the residual stream that leaves the layer; `gated` may be act.up.
template <class Real>
void leave_layer(const LayerContext<Real>& context, const LayerWeights<Real>& weights,
                 const LayerActivations<Real>& act, const Matrix<Real>& gated, const Matrix<Real>& x) {
    const auto gate = [&](const auto& out) { swiglu(act.gate, act.up, out); };
    context.gemm.linear_of(gated, gate, {{weights.down, x, act.middle}});
}

template <class Real>
double sum_of(const Matrix<Real>& values) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, values);
    return std::accumulate(host.data(), host.data() + host.size(), 0.0);
}

template <class Real>
Matrix<Real> make(const char* label, int rows, int columns) {
    return Matrix<Real>(uninitialized(label), rows, columns);
}

} // namespace

template <class Real>
LayerActivations<Real>::LayerActivations(const ModelConfig& config, const AttentionShape& shape)
    : input_normed(make<Real>("input_normed", shape.rows(), config.hidden_size)),
      q(make<Real>("q", shape.rows(), config.query_size())), k(make<Real>("k", shape.rows(), config.kv_size())),
      v(make<Real>("v", shape.rows(), config.kv_size())), y(make<Real>("y", shape.rows(), config.query_size())),
      statistics(make<Real>("statistics", shape.batch * shape.heads, shape.length)),
      middle(make<Real>("middle", shape.rows(), config.hidden_size)),
      mlp_normed(make<Real>("mlp_normed", shape.rows(), config.hidden_size)),
      gate(make<Real>("gate", shape.rows(), config.intermediate_size)),
      up(make<Real>("up", shape.rows(), config.intermediate_size)) {}

template <class Real>
LayerGradients<Real>::LayerGradients(const ModelConfig& config, const AttentionShape& shape)
    : narrow(make<Real>("narrow", shape.rows(), config.hidden_size)),
      middle(make<Real>("dmiddle", shape.rows(), config.hidden_size)),
      wide(make<Real>("wide", shape.rows(), config.intermediate_size)),
      dy(make<Real>("dy", shape.rows(), config.query_size())), dk(make<Real>("dk", shape.rows(), config.kv_size())),
      dv(make<Real>("dv", shape.rows(), config.kv_size())),
      inputs{make<Real>("dq_heads", shape.rows(), config.query_size()),
             make<Real>("dk_heads", shape.rows(), config.query_size()),
             make<Real>("dv_heads", shape.rows(), config.query_size())} {}

template <class Real>
LayerActivations<Real> for_shape(const LayerActivations<Real>& act, const AttentionShape& shape) {
    const int n = shape.rows();
    LayerActivations<Real> part;
    part.input_normed = first_rows(act.input_normed, n);
    part.q = first_rows(act.q, n);
    part.k = first_rows(act.k, n);
    part.v = first_rows(act.v, n);
    part.y = first_rows(act.y, n);
    part.statistics = first_rows(act.statistics, shape.batch * shape.heads);
    part.middle = first_rows(act.middle, n);
    part.mlp_normed = first_rows(act.mlp_normed, n);
    part.gate = first_rows(act.gate, n);
    part.up = first_rows(act.up, n);
    return part;
}

template <class Real>
void add_gradients(const AttentionShape& shape, const StudentGradients<Real>& gradients,
                   const StudentGradientSums& sums) {
    const auto column = [](const Vector<Real>& values) { return Matrix<Real>(values.data(), values.extent(0), 1); };
    add_over_batch(shape.batch, shape.heads, gradients.q_map, sums.q_map);
    add_over_batch(shape.batch, shape.heads, gradients.k_map, sums.k_map);
    if (sums.q_bias.extent(0) > 0) {
        add_over_batch(shape.batch, shape.heads, column(gradients.q_bias), sums.q_bias);
        add_over_batch(shape.batch, shape.heads, column(gradients.k_bias), sums.k_bias);
    }
    if (sums.window_factors.extent(0) > 0)
        add_over_batch(shape.batch, shape.heads, column(gradients.window_factors), sums.window_factors);
}

template <class Real>
void attention_inputs(const LayerContext<Real>& context, const AttentionShape& shape, const LayerWeights<Real>& weights,
                      const Matrix<Real>& x, const LayerActivations<Real>& act, const AddUpdate<Real>& add_update) {
    const auto normalize = [&](const auto& out) { rms_norm(x, weights.input_norm, context.config.rms_norm_eps, out); };
    const typename Gemm<Real>::LinearTargets targets = {{weights.q, act.q}, {weights.k, act.k}, {weights.v, act.v}};
    if (add_update) { // reads act.input_normed as well, which linear_of() leaves as scratch
        normalize(act.input_normed);
        context.gemm.linear(act.input_normed, targets);
        add_update(q_proj, act.input_normed, act.q);
        add_update(k_proj, act.input_normed, act.k);
        add_update(v_proj, act.input_normed, act.v);
    } else {
        context.gemm.linear_of(act.input_normed, normalize, targets);
    }
    rotate(context.rope, Rotation::forward, shape.length, shape.head_dim, act.q);
    rotate(context.rope, Rotation::forward, shape.length, shape.head_dim, act.k);
}

template <class Real>
void finish_layer(const LayerContext<Real>& context, const LayerWeights<Real>& weights,
                  const LayerActivations<Real>& act, const Matrix<Real>& x) {
    context.gemm.linear(act.y, {{weights.o, act.middle, x}});
    mlp_forward(context, weights, act);
    leave_layer(context, weights, act, act.up, x);
}

void round_residual(Storage storage, const Matrix<float>& x) {
    if (storage != Storage::full) round_to_bf16(x);
}

template <class Real>
void teacher_layer(const LayerContext<Real>& context, const AttentionShape& shape, const LayerWeights<Real>& weights,
                   const LayerActivations<Real>& act, const Matrix<Real>& x) {
    attention_inputs(context, shape, weights, x, act);
    softmax_attention(shape, act.inputs(), act.outputs());
    finish_layer(context, weights, act, x);
}

template <class Real>
AdaptedDecoder<Real>::AdaptedDecoder(const LayerContext<Real>& context, const AttentionShape& largest,
                                     const StudentForm& form, const LoraForm& lora)
    : context_(context), form_(form), lora_(lora), activations_(context.config, largest), largest_(largest) {
    const auto& config = context.config;
    if (lora.rank > 0)
        lora_scratch_ = LoraScratch<Real>(lora, largest.rows(), std::max(config.hidden_size, config.query_size()));
}

template <class Real>
LoraContext<Real> AdaptedDecoder<Real>::lora_context(const AttentionShape& shape, const AdaptedLayer<Real>& layer,
                                                     Projection projection, const DropoutStreams& streams) const {
    return {lora_, streams, shape.length, layer.index * projection_names.size() + projection};
}

template <class Real>
void AdaptedDecoder<Real>::take_apart(const BranchChoice& choice) {
    choice_ = choice;
    const int heads = largest_.batch * largest_.heads;
    mass_ = {make<Real>("far_mass", heads, largest_.length), make<Real>("far_softmax_mass", heads, largest_.length)};
}

template <class Real>
void AdaptedDecoder<Real>::attend(const AttentionShape& shape, const AdaptedLayer<Real>& layer,
                                  const LayerActivations<Real>& act) {
    if (layer.softmax) return softmax_attention(shape, act.inputs(), act.outputs());
    if (choice_) return attend_in_part(shape, layer, act);
    student_attention(shape, {form_, layer.student}, act.inputs(), act.outputs());
}

template <class Real>
void AdaptedDecoder<Real>::attend_in_part(const AttentionShape& shape, const AdaptedLayer<Real>& layer,
                                          const LayerActivations<Real>& act) {
    const int heads = shape.batch * shape.heads;
    const AttentionMass<Real> mass{first_rows(mass_.far, heads), first_rows(mass_.far_softmax, heads)};
    branch_attention(shape, {form_, layer.student}, *choice_, act.inputs(), act.y, mass);
    MassSum& sum = mass_sums_[static_cast<int>(layer.index)];
    sum.far += sum_of(mass.far);
    sum.far_softmax += sum_of(mass.far_softmax);
    sum.queries += static_cast<double>(heads) * queries_with_far_keys(form_, shape.length);
}

template <class Real>
void AdaptedDecoder<Real>::run_to_middle(const AttentionShape& shape, const LayerWeights<Real>& weights,
                                         const AdaptedLayer<Real>& layer, const DropoutStreams& streams,
                                         const Matrix<Real>& x, const LayerActivations<Real>& act) {
    const AddUpdate<Real> add_update = [&](Projection projection, const Matrix<Real>& in, const Matrix<Real>& out) {
        add_low_rank(context_.gemm, lora_context(shape, layer, projection, streams), layer.lora[projection], in, out,
                     lora_scratch_);
    };
    attention_inputs(context_, shape, weights, x, act, add_update);
    attend(shape, layer, act);
    context_.gemm.linear(act.y, {{weights.o, act.middle, x}});
    add_update(o_proj, act.y, act.middle);
    mlp_forward(context_, weights, act);
}

template <class Real>
void AdaptedDecoder<Real>::forward(const AttentionShape& shape, const LayerWeights<Real>& weights,
                                   const AdaptedLayer<Real>& layer, const DropoutStreams& streams,
                                   const Matrix<Real>& x) {
    const auto act = for_shape(activations_, shape);
    held_ = nullptr;
    run_to_middle(shape, weights, layer, streams, x, act);
    leave_layer(context_, weights, act, act.up, x);
}

template <class Real>
void AdaptedDecoder<Real>::forward(const AttentionShape& shape, const LayerWeights<Real>& weights,
                                   const AdaptedLayer<Real>& layer, const DropoutStreams& streams,
                                   const Matrix<Real>& x, const LayerRecord<Real>& record) {
    allocate_gradients();
    Kokkos::deep_copy(Execution(), first_rows(record.entered, shape.rows()), x);
    if (!record.keeps_activations()) held_ = record.entered.data();
    const auto act = activations_of(shape, record);
    run_to_middle(shape, weights, layer, streams, x, act);
    leave_layer(context_, weights, act, first_rows(gradients_.wide, shape.rows()), x); // the backward pass reads up
}

template <class Real>
LayerActivations<Real> AdaptedDecoder<Real>::activations_of(const AttentionShape& shape,
                                                            const LayerRecord<Real>& record) const {
    return for_shape(record.keeps_activations() ? record.kept : activations_, shape);
}

template <class Real>
LayerActivations<Real> AdaptedDecoder<Real>::activations_to_keep() const {
    LayerActivations<Real> kept(context_.config, largest_);
    kept.mlp_normed = activations_.mlp_normed; // nothing in the MLP is trained
    return kept;
}

template <class Real>
void AdaptedDecoder<Real>::allocate_gradients() {
    if (gradients_.dy.extent(0) == 0) gradients_ = LayerGradients<Real>(context_.config, largest_);
}

/// dx: gradient of the layer's output; gradients_.middle becomes that of act.middle.
template <class Real>
void AdaptedDecoder<Real>::mlp_backward(const LayerWeights<Real>& weights, const LayerActivations<Real>& act,
                                        const Matrix<Real>& dx) {
    const int n = static_cast<int>(dx.extent(0));
    const auto wide = first_rows(gradients_.wide, n);
    const auto narrow = first_rows(gradients_.narrow, n);
    const auto middle = first_rows(gradients_.middle, n);
    context_.gemm.linear_backward(dx, weights.down, wide);
    swiglu_backward(wide, act.gate, act.up);
    context_.gemm.linear_backward(act.gate, weights.gate, narrow);
    context_.gemm.linear_backward(act.up, weights.up, narrow, true);
    rms_norm_backward(act.middle, weights.post_attention_norm, context_.config.rms_norm_eps, narrow, dx, middle);
}

template <class Real>
void AdaptedDecoder<Real>::student_backward(const AttentionShape& shape, const AdaptedLayer<Real>& layer,
                                            const LayerActivations<Real>& act, const Matrix<Real>& dy,
                                            const AttentionInputGradients<Real>& inputs) {
    const bool trained = layer.student_gradients.q_map.extent(0) > 0;
    StudentGradients<Real>& maps = gradients_.student;
    if (trained && !maps.exist())
        maps = {largest_.batch * largest_.heads, context_.config.head_dim * form_.feature_dim};
    if (trained) maps.set_zero();
    student_attention_backward(shape, {form_, layer.student}, act.inputs(), act.outputs(), dy,
                               trained ? maps : StudentGradients<Real>(), inputs);
    if (trained) add_gradients(shape, maps, layer.student_gradients);
}

/// From gradients_.middle to `narrow`, the gradient of act.input_normed, unless that has no rows.
template <class Real>
void AdaptedDecoder<Real>::attention_backward(const AttentionShape& shape, const LayerWeights<Real>& weights,
                                              const AdaptedLayer<Real>& layer, const DropoutStreams& streams,
                                              const LayerActivations<Real>& act, const Matrix<Real>& narrow) {
    const int n = shape.rows();
    const auto middle = first_rows(gradients_.middle, n);
    const auto dy = first_rows(gradients_.dy, n);
    const auto dk = first_rows(gradients_.dk, n);
    const auto dv = first_rows(gradients_.dv, n);
    const AttentionInputGradients<Real> inputs{first_rows(gradients_.inputs.q, n), first_rows(gradients_.inputs.k, n),
                                               first_rows(gradients_.inputs.v, n)};
    const auto project_backward = [&](Projection projection, const Weight<Real>& weight, const Matrix<Real>& in,
                                      const Matrix<Real>& d_out, const Matrix<Real>& d_in, bool add) {
        if (d_in.extent(0) > 0) context_.gemm.linear_backward(d_out, weight, d_in, add);
        low_rank_backward(context_.gemm, lora_context(shape, layer, projection, streams), layer.lora[projection], in,
                          d_out, d_in, lora_scratch_);
    };
    project_backward(o_proj, weights.o, act.y, middle, dy, false);
    if (layer.softmax) {
        softmax_attention_backward(shape, act.inputs(), act.outputs(), dy, inputs);
    } else {
        student_backward(shape, layer, act, dy, inputs);
    }
    sum_head_groups(shape, inputs.k, dk);
    sum_head_groups(shape, inputs.v, dv);
    rotate(context_.rope, Rotation::backward, shape.length, shape.head_dim, inputs.q);
    rotate(context_.rope, Rotation::backward, shape.length, shape.head_dim, dk);
    project_backward(q_proj, weights.q, act.input_normed, inputs.q, narrow, false);
    project_backward(k_proj, weights.k, act.input_normed, dk, narrow, true);
    project_backward(v_proj, weights.v, act.input_normed, dv, narrow, true);
}

template <class Real>
void AdaptedDecoder<Real>::backward(const AttentionShape& shape, const LayerWeights<Real>& weights,
                                    const AdaptedLayer<Real>& layer, const DropoutStreams& streams,
                                    const LayerRecord<Real>& record, const Matrix<Real>& dx, InputGradient entered) {
    const Matrix<Real> x = first_rows(record.entered, shape.rows());
    const auto act = activations_of(shape, record);
    if (!record.keeps_activations()) {
        if (held_ != x.data()) run_to_middle(shape, weights, layer, streams, x, act);
        held_ = nullptr;
    }
    mlp_backward(weights, act, dx);
    if (entered == InputGradient::unused) return attention_backward(shape, weights, layer, streams, act, {});
    const auto narrow = first_rows(gradients_.narrow, shape.rows());
    attention_backward(shape, weights, layer, streams, act, narrow);
    rms_norm_backward(x, weights.input_norm, context_.config.rms_norm_eps, narrow,
                      first_rows(gradients_.middle, shape.rows()), dx);
}

#define LOLCATS_INSTANTIATE(Real)                                                                                      \
    template struct LayerActivations<Real>;                                                                            \
    template struct LayerGradients<Real>;                                                                              \
    template class AdaptedDecoder<Real>;                                                                               \
    template LayerActivations<Real> for_shape<Real>(const LayerActivations<Real>&, const AttentionShape&);             \
    template void add_gradients<Real>(const AttentionShape&, const StudentGradients<Real>&,                            \
                                      const StudentGradientSums&);                                                     \
    template void attention_inputs<Real>(const LayerContext<Real>&, const AttentionShape&, const LayerWeights<Real>&,  \
                                         const Matrix<Real>&, const LayerActivations<Real>&, const AddUpdate<Real>&);  \
    template void finish_layer<Real>(const LayerContext<Real>&, const LayerWeights<Real>&,                             \
                                     const LayerActivations<Real>&, const Matrix<Real>&);                              \
    template void teacher_layer<Real>(const LayerContext<Real>&, const AttentionShape&, const LayerWeights<Real>&,     \
                                      const LayerActivations<Real>&, const Matrix<Real>&);
LOLCATS_INSTANTIATE(float)
LOLCATS_INSTANTIATE(double)
#undef LOLCATS_INSTANTIATE

} // namespace lolcats
