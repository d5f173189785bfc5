#pragma once
/// One block of consecutive layers in attention transfer: the teacher passes through, and beside each layer's attention
/// its student learns to give the same output (paper section 3.1).
#include "lolcats/model.hpp"
#include "src/block_layout.hpp"
#include "src/model/decoder_layer.hpp"
#include "src/model/students.hpp"
#include "src/train/parameters.hpp"

#include <vector>

namespace lolcats {

/// loss of a layer = mse_factor * mean over (B, H, T, d) of (y^ - y)^2 + xent_factor * mean over queries of the
/// cross-entropy; the block's loss is the mean of its layers'.
struct TransferLoss {
    double mse_factor;
    double xent_factor;
    double far_xent_factor = 0; ///< the same over far keys alone
    bool relative = false;      ///< the squared error is relative_squared_error's
};

/// By layer, for the sequences that were added up.
struct LayerLosses {
    explicit LayerLosses(int layers = 0) : total(layers), mse(layers) {}

    std::vector<double> total; ///< what is trained on
    std::vector<double> mse;   ///< the squared error in it, without its factor
};

class TransferBlock {
public:
    /// weights: of `layers`, in order, kept in the type `storage`. No micro-batch may exceed `largest`.
    TransferBlock(std::vector<LayerWeights<float>> weights, const ModelConfig& config, const StudentForm& form,
                  bool tied, Storage storage, Arithmetic arithmetic, Range layers, const AttentionShape& largest,
                  const TransferLoss& loss);

    [[nodiscard]] ParameterSet& parameters() { return parameters_; }
    [[nodiscard]] const ParameterSet& parameters() const { return parameters_; }
    [[nodiscard]] const Students& students() const { return students_; }
    [[nodiscard]] Range layers() const { return layers_; }

    /// What the students compute with from now on: near keys and window may differ from those they were made with.
    void set_form(const StudentForm& form) { form_ = form; }
    /// x[n, D] enters the block's first layer. It becomes what leaves the last one where the block `hands_on`, and is
    /// used up otherwise. Adds this micro-batch's share of each layer's loss, for a batch of `batch` sequences in all,
    /// to `losses`; with `train` also its gradients.
    void run(const AttentionShape& shape, const Matrix<float>& x, double batch, bool train, bool hands_on,
             LayerLosses& losses);
    /// x[n, D] becomes what leaves the block; nothing is learnt.
    void pass_through(const AttentionShape& shape, const Matrix<float>& x);

private:
    void hand_on(const LayerWeights<float>& weights, const LayerActivations<float>& act, const Matrix<float>& x);
    void add_layer_loss(const AttentionShape& shape, int layer, const LayerActivations<float>& act, double batch,
                        bool train, LayerLosses& losses);

    ModelConfig config_;
    StudentForm form_;
    Storage storage_;
    Range layers_;
    TransferLoss loss_;
    Gemm<float> gemm_;
    RopeTable<float> rope_;
    std::vector<LayerWeights<float>> weights_;
    ParameterSet parameters_;
    Students students_;
    LayerActivations<float> activations_;
    Matrix<float> student_y_;         ///< [n, H d]
    Matrix<float> normalizer_;        ///< [B H, T]
    Matrix<float> dy_;                ///< [n, H d]
    StudentGradients<float> partial_; ///< one micro-batch's gradients, by sequence
};

} // namespace lolcats
