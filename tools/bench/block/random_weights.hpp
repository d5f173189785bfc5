#pragma once
/// Random weights and inputs, made where they are used: a block of 405B is never on the host.
#include "lolcats/model.hpp"
#include "lolcats/options.hpp"

#include <cstdint>
#include <vector>

namespace lolcats::bench {

/// Uniform with variance `scale`^2, the same for every machine.
void fill(const Matrix<BFloat16>& matrix, double scale, std::uint64_t stream);
/// The same, rounded to bf16 as the residual stream is.
void fill(const Matrix<float>& matrix, double scale, std::uint64_t stream);

/// What the weights are kept in.
inline Storage storage_of(const Options& options) {
    return options.dtype == "fp8" ? Storage::fp8 : Storage::bf16;
}

/// A weight [outputs, inputs] in bf16 or 8 bits that keeps the variance of what it is applied to.
Weight<float> random_weight(int outputs, int inputs, std::uint64_t stream, Storage storage = Storage::bf16);

/// `layers` layers without biases, norms of 1.
std::vector<LayerWeights<float>> random_layers(const ModelConfig& model, int layers, Storage storage);
HeadWeights<float> random_head(const ModelConfig& model);

} // namespace lolcats::bench
