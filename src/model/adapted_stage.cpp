#include "src/model/adapted_stage.hpp"

namespace lolcats {

AdaptedStage::InFlight AdaptedStage::take(std::size_t rows, std::size_t width) {
    if (free_.empty()) {
        InFlight flight;
        for (std::size_t i = 0; i < weights_.size(); ++i) {
            auto& record = flight.layers.emplace_back();
            record.entered = Matrix<float>(uninitialized("layer_input"), rows, width);
            if (i < layers_kept_) record.kept = decoder_.activations_to_keep();
        }
        flight.gradient = Matrix<float>(uninitialized("residual_gradient"), rows, width);
        return flight;
    }
    InFlight flight = std::move(free_.back());
    free_.pop_back();
    return flight;
}

void AdaptedStage::forward(const AttentionShape& shape, const DropoutStreams& streams, const Matrix<float>& x,
                           const InFlight& flight) {
    for (std::size_t i = 0; i < weights_.size(); ++i)
        decoder_.forward(shape, weights_[i], layers_[i], streams, x, flight.layers[i]);
}

void AdaptedStage::backward(const AttentionShape& shape, const DropoutStreams& streams, const InFlight& flight,
                            const Matrix<float>& dx) {
    for (std::size_t i = weights_.size(); i-- > 0;)
        decoder_.backward(shape, weights_[i], layers_[i], streams, flight.layers[i], dx,
                          i > 0 ? InputGradient::wanted : entered_);
}

} // namespace lolcats
