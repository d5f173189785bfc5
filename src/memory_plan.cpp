#include "src/memory_plan.hpp"

#include "kernels/attention_workspace.hpp"
#include "kernels/products.hpp"
#include "lolcats/attention_shape.hpp"
#include "src/work_sizes.hpp"

#include <algorithm>
#include <cmath>

namespace lolcats {

namespace {

constexpr double work_bytes = 4; ///< a number in a work array

/// A trained parameter: its value, gradient (double), two moments, and the value that did best in evaluations.
double trained_bytes(const Options& options) {
    return 4 + 8 + 4 + 4 + (options.validation > 0 ? 4 : 0);
}

double rows(const Plan& plan, const Options& options) {
    return static_cast<double>(options.micro_batch) * plan.length;
}

double stream_bytes(const Plan& plan, const Options& options) {
    return rows(plan, options) * plan.model.hidden_size * work_bytes;
}

double frozen_bytes(const Plan& plan, int layers) {
    return layers * plan.layer_weight_bytes;
}

/// Elements of LayerActivations.
double activations(const ModelConfig& m, double n) {
    return n * (3.0 * m.hidden_size + 2.0 * m.query_size() + 2.0 * m.kv_size() + m.heads + 2.0 * m.intermediate_size);
}

/// Elements of them that outlast a forward pass where they are kept: what goes into the MLP does not.
double kept_activations(const ModelConfig& m, double n) {
    return activations(m, n) - n * m.hidden_size;
}

/// Of so many layers, those whose activations are overwritten before their backward pass. With one micro-batch in
/// flight, the last layer's are still there.
int overwritten(int layers, int in_flight) {
    return in_flight > 1 ? layers : std::max(0, layers - 1);
}

constexpr double half_bytes = 2; ///< bf16

/// What products with frozen weights keep beside their operands: a weight in another type than it is stored in, and
/// rounded activations.
double converted_bytes(const ModelConfig& m, const Options& options, double n, bool has_backward) {
    const double widest = std::max(m.intermediate_size, m.query_size());
    const double weight = widest * m.hidden_size;
    if (options.gemm == "f32" || options.gemm == "exact") return work_bytes * weight;
    const double in_bf16 = half_bytes * (n * widest + (options.dtype == "fp8" ? weight : 0));
    const int row_count = static_cast<int>(std::min(n, 1e9));
    if (options.gemm != "fp8" || !Products::has_float8({row_count, 16, 16})) return in_bf16;
    const double rounded = n * widest;
    if (!Products::widens_float8()) return rounded + (has_backward ? in_bf16 : 0);
    return rounded + work_bytes * (n * widest + weight) + (has_backward ? work_bytes * weight : 0);
}

/// The same, and what the library works in.
double product_bytes(const ModelConfig& m, const Options& options, double n, bool has_backward) {
    const bool exact = options.gemm == "exact" || (options.gemm == "auto" && options.dtype == "f32");
    return (options.dtype == "f32" ? 0 : converted_bytes(m, options, n, has_backward)) +
           (exact ? 0 : static_cast<double>(Products::workspace_bytes()));
}

AttentionShape planned_shape(const Plan& plan, const Options& options) {
    return attention_shape(plan.model, options.micro_batch, plan.length);
}

bool attends_in_bf16(const Options& options) {
    return options.gemm == "bf16" || options.gemm == "fp8" || (options.gemm == "auto" && options.dtype != "f32");
}

double teacher_attention_bytes(const Plan& plan, const Options& options) {
    return attends_in_bf16(options) ? static_cast<double>(teacher_workspace(planned_shape(plan, options))) : 0;
}

StudentForm student_form_of(const Plan& plan, const Options& options) {
    const NearKeys near = options.attention == "none"      ? NearKeys::none
                          : options.attention == "sliding" ? NearKeys::sliding
                                                           : NearKeys::terrace;
    return {near, options.window, feature_map_kind(options.feature_map), feature_dim_of(plan.model, options),
            options.affine_attention_factors};
}

/// Forward and backward, with the teacher beside.
double student_attention_bytes(const Plan& plan, const Options& options, bool entropy) {
    if (!attends_in_bf16(options)) return 0;
    const AttentionShape shape = planned_shape(plan, options);
    std::size_t most = teacher_workspace(shape);
    const auto consider = [&](const StudentForm& form) {
        most = std::max(most, student_workspace(shape, form, entropy));
    };
    StudentForm form = student_form_of(plan, options);
    consider(form);
    if (options.window_dropout > 0) { // the form that needs most of those it draws
        if (options.window_dropout_kind == "size")
            form.window = std::min(form.window, smallest_twin_window);
        else
            form.near = NearKeys::none;
        consider(form);
    }
    return static_cast<double>(most);
}

/// Where products are in float, weights are widened one after the other in one array: what the LM head, which no dtype
/// has in 8 bits, needs of it beyond the layers.
double head_widening(const ModelConfig& m, const Options& options) {
    const bool in_float =
        options.gemm == "f32" || options.gemm == "exact" || (options.gemm == "fp8" && !Products::has_bf16());
    if (options.dtype == "f32" || !in_float) return 0;
    const double widest = std::max(m.intermediate_size, m.query_size());
    return std::max(0.0, m.vocab_size - widest) * m.hidden_size * work_bytes;
}

} // namespace

RankMemory teacher_memory(const Plan& plan, const Options& options, int layers, Neighbours neighbours) {
    const double n = rows(plan, options);
    return {.weights = frozen_bytes(plan, layers),
            .work = activations(plan.model, n) * work_bytes,
            .attention = layers > 0 ? teacher_attention_bytes(plan, options) : 0,
            .products = layers > 0 ? product_bytes(plan.model, options, n, false) : 0,
            .stream = stream_bytes(plan, options) + residual_link_memory(plan, options, neighbours)};
}

RankMemory transfer_memory(const Plan& plan, const Options& options, int layers, int blocks) {
    const ModelConfig& m = plan.model;
    const double n = rows(plan, options);
    const double maps = layer_map_parameters(m, options);
    const double student = n * (2.0 * m.query_size() + m.heads) + options.micro_batch * maps;
    return {.weights = frozen_bytes(plan, layers),
            .trained = layers * maps * trained_bytes(options),
            .work = blocks * (activations(m, n) + student) * work_bytes,
            .attention = student_attention_bytes(plan, options, options.xent_factor > 0 || options.far_xent_factor > 0),
            .products = blocks * product_bytes(m, options, n, false),
            .stream = stream_bytes(plan, options)};
}

int layers_kept(const Plan& plan, const Options& options, int layers, int in_flight) {
    const double each = in_flight * kept_activations(plan.model, rows(plan, options)) * work_bytes;
    const double fitting = std::floor(options.activation_memory / each);
    return static_cast<int>(std::min<double>(overwritten(layers, in_flight), fitting));
}

int layers_recomputed(const Plan& plan, const Options& options, int layers, int in_flight) {
    return overwritten(layers, in_flight) - layers_kept(plan, options, layers, in_flight);
}

RankMemory lora_memory(const Plan& plan, const Options& options, int layers, int in_flight) {
    const ModelConfig& m = plan.model;
    const double n = rows(plan, options);
    const double maps = layer_map_parameters(m, options);
    const double widest = std::max(m.hidden_size, m.query_size());
    // LayerGradients, LoraScratch and the residual stream
    const double gradients =
        n * (2.0 * m.hidden_size + m.intermediate_size + 4.0 * m.query_size() + 2.0 * m.kv_size()) +
        (options.train_feature_maps ? options.micro_batch * maps : 0);
    const double low_rank =
        2 * options.lora_rank * (n + widest) + (options.lora_dropout > 0 ? n * widest : 0) + n * m.hidden_size;
    const double adapter = layers * plan.lora_parameters / m.layers;
    const double students = layers * maps * (options.train_feature_maps ? trained_bytes(options) : work_bytes);
    return {.weights = frozen_bytes(plan, layers) + (options.train_feature_maps ? 0 : students),
            .trained = adapter * trained_bytes(options) + (options.train_feature_maps ? students : 0),
            .work = (activations(m, n) + gradients + low_rank) * work_bytes,
            .attention = student_attention_bytes(plan, options, false),
            .products = product_bytes(m, options, n, true),
            .kept = in_flight * ((layers + 1.0) * stream_bytes(plan, options) +
                                 layers_kept(plan, options, layers, in_flight) * kept_activations(m, n) * work_bytes)};
}

double head_memory(const Plan& plan, const Options& options) {
    const ModelConfig& m = plan.model;
    const double of_teacher = options.kl_factor > 0 ? m.vocab_size : 0;
    const double logits = head_rows * (m.vocab_size + of_teacher + m.hidden_size) * work_bytes;
    return plan.head_weight_bytes + logits + head_widening(m, options);
}

double residual_wire_bytes(const Options& options) {
    return options.dtype == "f32" ? work_bytes : half_bytes;
}

double residual_link_memory(const Plan& plan, const Options& options, Neighbours neighbours) {
    const double message = rows(plan, options) * plan.model.hidden_size * residual_wire_bytes(options);
    const bool is_widened = options.dtype != "f32"; // what arrives, into another array
    return ((neighbours.after ? messages_under_way : 0) + (neighbours.before && is_widened ? 1 : 0)) * message;
}

double lora_stage_memory(const Plan& plan, const Options& options, const LoraStage& part) {
    const bool is_last = part.stage + 1 == part.stages;
    // The teacher, whose logits the model is held to, goes beside it and on with it.
    const bool distils = options.kl_factor > 0;
    const double links = (part.stage > 0 ? 1 : 0) + (is_last ? 0 : distils ? 2 : 1);
    const double beside =
        distils ? activations(plan.model, rows(plan, options)) * work_bytes + stream_bytes(plan, options) : 0;
    return lora_memory(plan, options, part.layers, part.in_flight()).total() +
           links * messages_under_way * stream_bytes(plan, options) + beside +
           (is_last ? head_memory(plan, options) : 0);
}

} // namespace lolcats
