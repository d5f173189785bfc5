#include "src/train/transfer_block.hpp"

#include "kernels/softmax_attention.hpp"
#include "kernels/transfer_loss.hpp"

namespace lolcats {

TransferBlock::TransferBlock(std::vector<LayerWeights<float>> weights, const ModelConfig& config,
                             const StudentForm& form, bool tied, Storage storage, Arithmetic arithmetic, Range layers,
                             const AttentionShape& largest, const TransferLoss& loss)
    : config_(config), form_(form), storage_(storage), layers_(layers), loss_(loss), gemm_(arithmetic),
      rope_(rope_form(config), largest.length), weights_(std::move(weights)),
      students_(config, form, layers, tied, parameters_), activations_(config, largest),
      student_y_(uninitialized("student_y"), largest.rows(), config.query_size()),
      normalizer_(uninitialized("normalizer"), largest.batch * largest.heads, largest.length),
      dy_(uninitialized("dy"), largest.rows(), config.query_size()),
      partial_(largest.batch * largest.heads, config.head_dim * form.feature_dim) {
    parameters_.allocate(true);
}

void TransferBlock::run(const AttentionShape& shape, const Matrix<float>& x, double batch, bool train, bool hands_on,
                        LayerLosses& losses) {
    const LayerContext<float> context{config_, rope_, gemm_};
    const auto act = for_shape(activations_, shape);
    for (int layer = layers_.begin; layer < layers_.end; ++layer) {
        const auto& weights = weights_[layer - layers_.begin];
        attention_inputs(context, shape, weights, x, act);
        softmax_attention(shape, act.inputs(), act.outputs());
        add_layer_loss(shape, layer, act, batch, train, losses);
        // Nothing in the block itself needs what leaves its last attention.
        if (layer + 1 == layers_.end && !hands_on) break;
        hand_on(weights, act, x);
    }
}

void TransferBlock::pass_through(const AttentionShape& shape, const Matrix<float>& x) {
    const auto act = for_shape(activations_, shape);
    for (const auto& weights : weights_) {
        attention_inputs({config_, rope_, gemm_}, shape, weights, x, act);
        softmax_attention(shape, act.inputs(), act.outputs());
        hand_on(weights, act, x);
    }
}

void TransferBlock::hand_on(const LayerWeights<float>& weights, const LayerActivations<float>& act,
                            const Matrix<float>& x) {
    finish_layer({config_, rope_, gemm_}, weights, act, x);
    round_residual(storage_, x);
}

void TransferBlock::add_layer_loss(const AttentionShape& shape, int layer, const LayerActivations<float>& act,
                                   double batch, bool train, LayerLosses& losses) {
    const Student<float> student{form_, students_.parameters(layer)};
    const AttentionInputs<float> inputs = act.inputs();
    const AttentionOutputs<float> outputs{first_rows(student_y_, shape.rows()),
                                          first_rows(normalizer_, shape.batch * shape.heads)};
    const double queries = batch * shape.heads * shape.length;
    const double numbers = queries * shape.head_dim;
    const double mse_scale = loss_.mse_factor / numbers;
    const auto block_share = [&](double scale) { return static_cast<float>(scale / layers_.size()); };

    const SquaredError<float> error{act.y, block_share(mse_scale), first_rows(dy_, shape.rows())};
    double squares = 0;
    if (loss_.relative) {
        student_attention(shape, student, inputs, outputs);
        squares = relative_squared_error(outputs.y, shape.length, error);
    } else {
        squares = student_squared_error(shape, student, inputs, outputs, error);
    }
    double loss = mse_scale * squares;
    if (train) {
        partial_.set_zero();
        student_attention_backward(shape, student, inputs, outputs, error.dy, partial_);
    }
    const auto add_entropy = [&](EntropyKeys keys, double factor) {
        if (factor == 0) return;
        const double scale = factor / queries;
        const AttentionEntropy<float> entropy{keys, act.statistics, outputs.statistics};
        loss += scale * (train ? attention_cross_entropy(shape, student, inputs, entropy, block_share(scale), partial_)
                               : attention_cross_entropy(shape, student, inputs, entropy));
    };
    add_entropy(EntropyKeys::all, loss_.xent_factor);
    add_entropy(EntropyKeys::far, loss_.far_xent_factor);
    if (train) add_gradients(shape, partial_, students_.gradients(layer));
    losses.total[layer - layers_.begin] += loss;
    losses.mse[layer - layers_.begin] += squares / numbers;
}

} // namespace lolcats
