#include "src/memory_plan.hpp"

#include <algorithm>

namespace lolcats {

namespace {

constexpr double work_bytes = 4; ///< a number in a work array
/// A trained parameter: its value, gradient (double), two moments.
constexpr double trained_bytes = 4 + 8 + 4 + 4;

double rows(const Plan& plan, const Options& options) {
    return static_cast<double>(options.micro_batch) * plan.length;
}

double frozen_bytes(const Plan& plan, int layers) {
    return layers * plan.layer_parameters * plan.weight_bytes / plan.parameters;
}

/// Elements of LayerActivations.
double activations(const ModelConfig& m, double n) {
    return n * (3.0 * m.hidden_size + 2.0 * m.query_size() + 2.0 * m.kv_size() + m.heads + 2.0 * m.intermediate_size);
}

/// A bf16 weight widened to f32, or activations rounded to bf16.
double product_bytes(const ModelConfig& m, const Options& options, double n) {
    const double widest = std::max(m.intermediate_size, m.query_size());
    if (options.dtype == "f32") return 0;
    if (options.gemm == "f32" || options.gemm == "exact") return 4 * widest * m.hidden_size;
    return 2 * n * widest;
}

} // namespace

TransferMemory transfer_memory(const Plan& plan, const Options& options, int layers, int blocks) {
    const ModelConfig& m = plan.model;
    const double n = rows(plan, options);
    const double maps = layer_map_parameters(m, options);
    const double student = n * (2.0 * m.query_size() + m.heads) + options.micro_batch * maps;
    return {.weights = frozen_bytes(plan, layers),
            .trained = layers * maps * trained_bytes,
            .work = blocks * (activations(m, n) + student) * work_bytes,
            .products = blocks * product_bytes(m, options, n),
            .stream = n * m.hidden_size * work_bytes};
}

LoraMemory lora_memory(const Plan& plan, const Options& options, int layers, int micro_batches_in_flight) {
    const ModelConfig& m = plan.model;
    const double n = rows(plan, options);
    const double maps = layer_map_parameters(m, options);
    const double widest = std::max(m.hidden_size, m.query_size());
    // LayerGradients, LoraScratch and the residual stream
    const double gradients =
        n * (2.0 * m.hidden_size + m.intermediate_size + 4.0 * m.query_size() + 2.0 * m.kv_size()) +
        options.micro_batch * maps;
    const double low_rank =
        2 * options.lora_rank * (n + widest) + (options.lora_dropout > 0 ? n * widest : 0) + n * m.hidden_size;
    return {.weights = frozen_bytes(plan, layers) + layers * maps * work_bytes,
            .trained = layers * plan.lora_parameters / m.layers * trained_bytes,
            .work = (activations(m, n) + gradients + low_rank) * work_bytes,
            .products = product_bytes(m, options, n),
            .kept = micro_batches_in_flight * (layers + 1.0) * n * m.hidden_size * work_bytes};
}

} // namespace lolcats
