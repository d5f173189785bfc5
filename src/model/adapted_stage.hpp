#pragma once
/// Training through consecutive adapted layers: the forward pass keeps the input of each layer, and the activations of
/// the first `layers_kept`. The backward pass recomputes the activations of the others, except the last layer's if
/// nothing was computed in between. Several micro-batches may be between the two passes.
#include "src/model/decoder_layer.hpp"

#include <vector>

namespace lolcats {

class AdaptedStage {
public:
    /// A micro-batch between its forward and its backward pass.
    struct InFlight {
        std::vector<LayerRecord<float>> layers;
        Matrix<float> gradient; ///< [n, D], gradient of what left the last layer
    };

    /// Keeps references to the decoder, and to weights and adapted layers, one of each for a layer. `entered`: the
    /// gradient of what enters the first layer.
    AdaptedStage(AdaptedDecoder<float>& decoder, const std::vector<LayerWeights<float>>& weights,
                 const std::vector<AdaptedLayer<float>>& layers, int layers_kept, InputGradient entered)
        : decoder_(decoder), weights_(weights), layers_(layers), layers_kept_(layers_kept), entered_(entered) {}

    /// Arrays for micro-batches of `rows` rows of width D; those given back are used again.
    InFlight take(std::size_t rows, std::size_t width);
    void give_back(InFlight flight) { free_.push_back(std::move(flight)); }

    /// x[n, D] passes through the layers.
    void forward(const AttentionShape& shape, const DropoutStreams& streams, const Matrix<float>& x,
                 const InFlight& flight);
    /// dx[n, D] becomes the gradient of what entered the first layer, if wanted; adds to the layers' gradients.
    void backward(const AttentionShape& shape, const DropoutStreams& streams, const InFlight& flight,
                  const Matrix<float>& dx);

private:
    AdaptedDecoder<float>& decoder_;
    const std::vector<LayerWeights<float>>& weights_;
    const std::vector<AdaptedLayer<float>>& layers_;
    std::size_t layers_kept_;
    InputGradient entered_;
    std::vector<InFlight> free_;
};

} // namespace lolcats
