#include "src/model/adapted_stage.hpp"

namespace lolcats {

AdaptedStage::InFlight AdaptedStage::take(std::size_t rows, std::size_t width) {
    if (free_.empty()) {
        InFlight flight;
        for (std::size_t i = 0; i < weights_.size(); ++i)
            flight.inputs.emplace_back(uninitialized("layer_input"), rows, width);
        flight.gradient = Matrix<float>(uninitialized("residual_gradient"), rows, width);
        return flight;
    }
    InFlight flight = std::move(free_.back());
    free_.pop_back();
    return flight;
}

void AdaptedStage::forward(const AttentionShape& shape, const DropoutStreams& streams, const Matrix<float>& x,
                           const InFlight& flight) {
    for (std::size_t i = 0; i < weights_.size(); ++i) {
        const auto entered = first_rows(flight.inputs[i], shape.rows());
        Kokkos::deep_copy(Execution(), entered, x);
        const bool is_last = i + 1 == weights_.size(); // the backward pass begins there, often at once
        decoder_.forward(shape, weights_[i], layers_[i], streams, x, is_last ? entered : Matrix<float>());
    }
}

void AdaptedStage::backward(const AttentionShape& shape, const DropoutStreams& streams, const InFlight& flight,
                            const Matrix<float>& dx) {
    for (std::size_t i = weights_.size(); i-- > 0;)
        decoder_.backward(shape, weights_[i], layers_[i], streams, first_rows(flight.inputs[i], shape.rows()), dx);
}

} // namespace lolcats
