#pragma once
/// Random weights and inputs, made where they are used: a block of 405B is never on the host.
#include "lolcats/model.hpp"

#include <cstdint>
#include <vector>

namespace lolcats::bench {

/// Uniform with variance `scale`^2, the same for every machine.
void fill(const Matrix<BFloat16>& matrix, double scale, std::uint64_t stream);
/// The same, rounded to bf16 as the residual stream is.
void fill(const Matrix<float>& matrix, double scale, std::uint64_t stream);

/// A bf16 weight [outputs, inputs] that keeps the variance of what it is applied to.
Weight<float> random_weight(int outputs, int inputs, std::uint64_t stream);

/// `layers` layers without biases, norms of 1.
std::vector<LayerWeights<float>> random_layers(const ModelConfig& model, int layers);
HeadWeights<float> random_head(const ModelConfig& model);

} // namespace lolcats::bench
