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
                        std::vector<double>& losses) {
    const LayerContext<float> context{config_, rope_, gemm_};
    const auto act = for_shape(activations_, shape);
    for (int layer = layers_.begin; layer < layers_.end; ++layer) {
        const auto& weights = weights_[layer - layers_.begin];
        attention_inputs(context, shape, weights, x, act);
        softmax_attention(shape, act.q, act.k, act.v, act.y, act.statistics);
        losses[layer - layers_.begin] += layer_loss(shape, layer, act, batch, train);
        // Nothing in the block itself needs what leaves its last attention.
        if (layer + 1 == layers_.end && !hands_on) break;
        hand_on(weights, act, x);
    }
}

void TransferBlock::pass_through(const AttentionShape& shape, const Matrix<float>& x) {
    const auto act = for_shape(activations_, shape);
    for (const auto& weights : weights_) {
        attention_inputs({config_, rope_, gemm_}, shape, weights, x, act);
        softmax_attention(shape, act.q, act.k, act.v, act.y, act.statistics);
        hand_on(weights, act, x);
    }
}

void TransferBlock::hand_on(const LayerWeights<float>& weights, const LayerActivations<float>& act,
                            const Matrix<float>& x) {
    finish_layer({config_, rope_, gemm_}, weights, act, x);
    round_residual(storage_, x);
}

double TransferBlock::layer_loss(const AttentionShape& shape, int layer, const LayerActivations<float>& act,
                                 double batch, bool train) {
    const auto student = students_.parameters(layer);
    const auto y = first_rows(student_y_, shape.rows());
    const auto dy = first_rows(dy_, shape.rows());
    const auto normalizer = first_rows(normalizer_, shape.batch * shape.heads);
    const double queries = batch * shape.heads * shape.length;
    const double mse_scale = loss_.mse_factor / (queries * shape.head_dim);
    const double xent_scale = loss_.xent_factor / queries;
    const double far_xent_scale = loss_.far_xent_factor / queries;
    const auto block_share = [&](double scale) { return static_cast<float>(scale / layers_.size()); };

    double loss = 0;
    if (loss_.relative) {
        student_attention(shape, form_, student, act.q, act.k, act.v, y, normalizer);
        loss = mse_scale * relative_squared_error(y, act.y, shape.length, block_share(mse_scale), dy);
    } else {
        loss = mse_scale * student_squared_error(shape, form_, student, act.q, act.k, act.v, act.y,
                                                 block_share(mse_scale), y, normalizer, dy);
    }
    if (train) {
        partial_.set_zero();
        student_attention_backward(shape, form_, student, act.q, act.k, act.v, y, normalizer, dy, partial_);
    }
    if (loss_.xent_factor > 0)
        loss += xent_scale *
                (train ? attention_cross_entropy(shape, form_, student, act.q, act.k, act.statistics, normalizer,
                                                 block_share(xent_scale), partial_)
                       : attention_cross_entropy(shape, form_, student, act.q, act.k, act.statistics, normalizer));
    if (loss_.far_xent_factor > 0)
        loss += far_xent_scale * (train ? far_cross_entropy(shape, form_, student, act.q, act.k, act.statistics,
                                                            block_share(far_xent_scale), partial_)
                                        : far_cross_entropy(shape, form_, student, act.q, act.k, act.statistics));
    if (train) add_gradients(shape, partial_, students_.gradients(layer));
    return loss;
}

} // namespace lolcats
