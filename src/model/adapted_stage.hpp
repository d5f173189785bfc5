#pragma once
/// Training through consecutive adapted layers: the forward pass keeps what entered each layer, and of the first
/// `layers_kept` the activations. The backward pass recomputes those of the others, but for the last layer's where
/// nothing came between. Several micro-batches may be between the two.
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

    /// The decoder, and the weights and adapted layers, one each a layer, are referred to. `entered`: of what enters
    /// the first layer.
    AdaptedStage(AdaptedDecoder<float>& decoder, const std::vector<LayerWeights<float>>& weights,
                 const std::vector<AdaptedLayer<float>>& layers, int layers_kept, InputGradient entered)
        : decoder_(decoder), weights_(weights), layers_(layers), layers_kept_(layers_kept), entered_(entered) {}

    /// Arrays for micro-batches of `rows` rows of width D; those given back are used again.
    InFlight take(std::size_t rows, std::size_t width);
    void give_back(InFlight flight) { free_.push_back(std::move(flight)); }

    /// x[n, D] passes through the layers.
    void forward(const AttentionShape& shape, const DropoutStreams& streams, const Matrix<float>& x,
                 const InFlight& flight);
    /// dx[n, D] becomes the gradient of what entered the first layer, if wanted; the layers' gradients are added to.
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
