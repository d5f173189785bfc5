#include "lolcats/plan.hpp"

#include "kernels/feature_maps.hpp"
#include "lolcats/error.hpp"
#include "src/block_layout.hpp"
#include "src/memory_plan.hpp"
#include "src/softmax_reach.hpp"
#include "src/text_table.hpp"

#include <algorithm>
#include <cmath>

namespace lolcats {
namespace {

constexpr double hour = 3600;

/// Of a parameter in the checkpoint, and in memory but for the matrices of decoder layers in 8 bits.
double parameter_bytes(const Options& options) {
    return options.dtype == "f32" ? 4 : 2;
}

double state_bytes_each(const Options& options) {
    return stored_type(options) == "f32" ? 4 : 2;
}

double layer_parameters(const ModelConfig& m) {
    const double d = m.hidden_size;
    const double q = m.query_size();
    const double kv = m.kv_size();
    const double attention_bias = m.attention_bias ? q + 2 * kv + d : 0;
    const double mlp_bias = m.mlp_bias ? 2.0 * m.intermediate_size + d : 0;
    return 2 * d * q + 2 * d * kv + 3 * d * m.intermediate_size + 2 * d + attention_bias + mlp_bias;
}

double layer_weight_bytes(const ModelConfig& m, const Options& options) {
    if (options.dtype != "fp8") return layer_parameters(m) * parameter_bytes(options);
    const double outputs = m.query_size() + 2.0 * m.kv_size() + 2.0 * m.hidden_size + 2.0 * m.intermediate_size;
    return layer_parameters(m) + outputs * sizeof(float);
}

double embedding_parameters(const ModelConfig& m) {
    return static_cast<double>(m.vocab_size) * m.hidden_size;
}

double flops_per_token_layer(const ModelConfig& m) {
    const double d = m.hidden_size;
    return 2 * (d * m.query_size() + 2 * d * m.kv_size() + m.query_size() * d + 3 * d * m.intermediate_size);
}

double layer_lora_parameters(const ModelConfig& m, const Options& options) {
    double sides = 0;
    for (const std::string& module : options.lora_modules) {
        const bool is_kv = module == "k_proj" || module == "v_proj";
        sides += m.hidden_size + (is_kv ? m.kv_size() : m.query_size());
    }
    return options.lora_rank * sides;
}

/// A stage of the pipeline in LoRA, of those with the most layers.
LoraStage lora_stage(const Options& options, const BlockPlan& row, int stage) {
    const double micro_batches = std::ceil(1.0 * options.batch_size / options.micro_batch);
    const int of_replica = static_cast<int>(std::ceil(micro_batches * row.pipeline_ranks / row.ranks));
    return {row.layers_per_rank, stage, row.pipeline_ranks, of_replica};
}

/// Of the most loaded rank: one with the most layers, and in stage 2 the first stage, which has the most micro-batches
/// in flight, or the last, which has the head.
std::array<double, plan_stages> memory_of(const Plan& plan, const Options& options, const BlockPlan& row) {
    const int stages = row.pipeline_ranks;
    const int layers = row.layers_per_rank;
    // Stage 0 does not compute the model's last block: it matters only with one rank in the pipeline.
    const int computed = stages == 1 ? (row.blocks - 1) * row.block_layers : layers;
    const auto lora = [&](int stage) { return lora_stage_memory(plan, options, lora_stage(options, row, stage)); };
    return {teacher_memory(plan, options, computed, {.before = stages > 2, .after = stages > 1}).total(),
            transfer_memory(plan, options, row.block_layers, 1).total(), std::max(lora(0), lora(stages - 1))};
}

/// Forward passes' work in stage 2: forward, gradient of the activations, what the first pipeline stage recomputes, and
/// one more where the teacher is distilled.
double lora_passes(const Plan& plan, const Options& options, const BlockPlan& row) {
    const LoraStage first = lora_stage(options, row, 0);
    const double recomputed = layers_recomputed(plan, options, first.layers, first.in_flight());
    return 2 + recomputed / first.layers + (options.kl_factor > 0 ? 1 : 0);
}

/// How much longer a batch of stage 2 takes than its work: the pipeline fills and drains once a batch.
double bubble_factor(const LoraStage& part) {
    return (part.micro_batches + part.stages - 1.0) / part.micro_batches;
}

/// Fills in the hours. Stage 0 runs the teacher once over the data and writes its states, stage 1 reads them back and
/// runs the teacher again every epoch, stage 2 is lora_passes() with its bubble. Every
/// stage reads the weights once.
void add_hours(const Plan& plan, const Options& options, BlockPlan& row) {
    const double data_ranks = static_cast<double>(row.ranks) / row.pipeline_ranks;
    const double pass =
        plan.tokens * plan.flops_per_token_layer * row.layers_per_rank / (data_ranks * plan.flops) / hour;
    const double load = plan.checkpoint_bytes / plan.bandwidth / hour;
    const double states = row.store_bytes / plan.bandwidth / hour;
    const bool stores = row.blocks > 1; // else there is no stage 0
    row.compute_hours = {stores ? pass : 0, pass * options.epochs,
                         lora_passes(plan, options, row) * bubble_factor(lora_stage(options, row, 0)) * pass *
                             options.epochs};
    row.io_hours = {stores ? load + states : 0, load + states * options.epochs, load};
    for (int i = 0; i < plan_stages; ++i) row.hours[i] = row.compute_hours[i] + row.io_hours[i];
}

/// `pipeline_ranks` 0 lets the mesh choose.
BlockPlan plan_blocks(const Plan& plan, const Options& options, int block_layers, int pipeline_ranks) {
    const BlockLayout layout = make_block_layout(plan.model.layers, block_layers);
    BlockPlan row{};
    row.block_layers = layout.block_layers;
    row.blocks = layout.blocks;
    row.ranks = options.plan_ranks == 0 ? layout.blocks : options.plan_ranks;
    row.pipeline_ranks = pipeline_size(row.ranks, row.blocks, pipeline_ranks);
    const Range first = blocks_of_stage(row.blocks, row.pipeline_ranks, 0); // no other rank owns more
    row.layers_per_rank = layout.layers_of(first).size();
    row.block_weight_bytes = row.block_layers * plan.layer_weight_bytes;
    row.rank_weight_bytes = row.layers_per_rank * plan.layer_weight_bytes;
    const double stream = plan.tokens * plan.model.hidden_size;
    row.store_bytes_paper = 2 * stream * plan.model.layers / row.block_layers;
    row.store_bytes = state_bytes_each(options) * stream * (row.blocks - 1);
    row.memory = memory_of(plan, options, row);
    add_hours(plan, options, row);
    return row;
}

void check(const ModelConfig& model, const Options& options) {
    if (options.plan_tokens < options.plan_length) {
        fail("plan-tokens is {:.0f}, less than one sequence of plan-length {} tokens: raise it", options.plan_tokens,
             options.plan_length);
    }
    if (model.sliding_window > 0 && options.plan_length > model.sliding_window) {
        fail("plan-length is {}, but this model attends to {} tokens only: choose plan-length {} or less",
             options.plan_length, model.sliding_window, model.sliding_window);
    }
}

/// The largest k whose ranks have memory enough, or 0.
int largest_fitting(const Plan& plan, const Options& options) {
    for (int k = plan.model.layers; k > 0; --k) {
        if (plan_blocks(plan, options, k, 0).largest_memory() <= plan.memory) return k;
    }
    return 0;
}

void warn(Plan& plan, const Options& options, int fitting) {
    const BlockPlan& row = plan.choices[plan.chosen];
    if (row.largest_memory() > plan.memory) {
        const std::string remedy =
            fitting > 0
                ? fmt::format("block-layers {} fits", fitting)
                : "no block-layers fits: use more ranks, ranks with more memory, a smaller micro-batch or dtype fp8";
        plan.warnings.push_back(fmt::format("a rank needs {} with block-layers {} but has {}: {}",
                                            gigabytes(row.largest_memory()), row.block_layers, gigabytes(plan.memory),
                                            remedy));
    }
    const std::string too_short = pure_softmax_warning(options.attention, options.window, options.plan_length);
    if (!too_short.empty()) plan.warnings.push_back(too_short);
    if (row.blocks % row.pipeline_ranks != 0) {
        plan.warnings.push_back(fmt::format("{} blocks do not spread evenly over {} pipeline ranks: some ranks wait",
                                            row.blocks, row.pipeline_ranks));
    }
}

std::string model_text(const Plan& plan) {
    const ModelConfig& m = plan.model;
    return line("layers, width, heads, kv heads",
                fmt::format("{}, {}, {}, {}", m.layers, m.hidden_size, m.heads, m.kv_heads)) +
           line("parameters",
                fmt::format("{:.3f} G ({:.3f} G a layer)", plan.parameters / 1e9, plan.layer_parameters / 1e9)) +
           line("weights", gigabytes(plan.weight_bytes)) +
           line("feature-map parameters", fmt::format("{:.2f} M", plan.feature_map_parameters / 1e6)) +
           line("LoRA parameters", fmt::format("{:.2f} M", plan.lora_parameters / 1e6)) +
           line("forward, per token and layer", fmt::format("{:.3g} GFLOP", plan.flops_per_token_layer / 1e9)) +
           line("training data", fmt::format("{:.4g} M tokens in sequences of {}", plan.tokens / 1e6, plan.length)) +
           line("machine, a rank", fmt::format("{}, {:.4g} TFLOP/s", gigabytes(plan.memory), plan.flops / 1e12)) +
           line("file system, all ranks", fmt::format("{:.4g} GB/s", plan.bandwidth / 1e9));
}

std::string chosen_text(const Plan& plan) {
    const BlockPlan& row = plan.choices[plan.chosen];
    std::string text =
        line("block-layers k, blocks, ranks", fmt::format("{}, {}, {}", row.block_layers, row.blocks, row.ranks)) +
        line("pipeline x data ranks", fmt::format("{} x {}", row.pipeline_ranks, row.ranks / row.pipeline_ranks)) +
        line("decoder weights, a block", gigabytes(row.block_weight_bytes)) +
        line("decoder weights, a rank",
             fmt::format("{} ({} layers)", gigabytes(row.rank_weight_bytes), row.layers_per_rank)) +
        line("hidden states, paper (L/k inputs)", fmt::format("{:.3f} TB", row.store_bytes_paper / 1e12)) +
        line("hidden states, stored here",
             fmt::format("{:.3f} TB ({} inputs; block 0 is looked up)", row.store_bytes / 1e12, row.blocks - 1));
    const std::array names = {"stage 0, hidden states", "stage 1, attention transfer", "stage 2, LoRA"};
    for (int i = 0; i < plan_stages; ++i) {
        if (i == 0 && row.blocks == 1) {
            text += line(names[i], "none: all layers are one block");
            continue;
        }
        const double larger = std::max(row.compute_hours[i], row.io_hours[i]);
        const char* bubble = i == 2 && row.pipeline_ranks > 1 ? ", with its bubble," : "";
        text += line(names[i], fmt::format("{} a rank; {:.3f} h compute{} + {:.3f} h files = {:.3f} h ({:.3f} h if "
                                           "both go on at once)",
                                           gigabytes(row.memory[i]), row.compute_hours[i], bubble, row.io_hours[i],
                                           row.hours[i], larger));
    }
    return text;
}

std::string choices_text(const Plan& plan) {
    TableRows rows = {{"k", "blocks", "ranks", "GB a block", "TB paper", "TB here", "GB a rank", "h stage 0",
                       "h stage 1", "h stage 2", "fits"}};
    for (const BlockPlan& row : plan.choices) {
        const auto number = [](double x, int digits) { return fmt::format("{:.{}f}", x, digits); };
        rows.push_back({std::to_string(row.block_layers), std::to_string(row.blocks), std::to_string(row.ranks),
                        number(row.block_weight_bytes / 1e9, 1), number(row.store_bytes_paper / 1e12, 2),
                        number(row.store_bytes / 1e12, 2), number(row.largest_memory() / 1e9, 1),
                        number(row.hours[0], 2), number(row.hours[1], 2), number(row.hours[2], 2),
                        row.largest_memory() <= plan.memory ? "yes" : "no"});
    }
    return aligned(rows);
}

} // namespace

int feature_dim_of(const ModelConfig& m, const Options& options) {
    if (options.feature_dim != 0) return options.feature_dim;
    return usual_feature_dim(feature_map_kind(options.feature_map), m.head_dim);
}

double layer_map_parameters(const ModelConfig& m, const Options& options) {
    const double bias = has_bias(feature_map_kind(options.feature_map)) ? 1 : 0;
    const double map = static_cast<double>(m.head_dim) * feature_dim_of(m, options) + bias;
    return m.heads * ((options.tie_feature_maps ? 1 : 2) * map + 1);
}

double BlockPlan::largest_memory() const {
    return *std::max_element(memory.begin(), memory.end());
}

Plan make_plan(const ModelConfig& model, const Options& options) {
    check(model, options);
    Plan plan{};
    plan.model = model;
    plan.tokens = options.plan_tokens;
    plan.length = options.plan_length;
    plan.memory = options.plan_memory;
    plan.flops = options.plan_flops;
    plan.bandwidth = options.plan_bandwidth;
    plan.layer_parameters = layer_parameters(model);
    plan.parameters = model.layers * plan.layer_parameters + model.hidden_size +
                      (model.tie_word_embeddings ? 1 : 2) * embedding_parameters(model);
    plan.checkpoint_bytes = plan.parameters * parameter_bytes(options);
    plan.layer_weight_bytes = layer_weight_bytes(model, options);
    plan.head_weight_bytes = embedding_parameters(model) * parameter_bytes(options);
    const double outside_layers = plan.parameters - model.layers * plan.layer_parameters;
    plan.weight_bytes = model.layers * plan.layer_weight_bytes + outside_layers * parameter_bytes(options);
    plan.feature_map_parameters = model.layers * layer_map_parameters(model, options);
    plan.lora_parameters = model.layers * layer_lora_parameters(model, options);
    plan.flops_per_token_layer = flops_per_token_layer(model);

    const int chosen = make_block_layout(model.layers, options.block_layers).block_layers;
    const BlockPlan row = plan_blocks(plan, options, chosen, options.pipeline_ranks);
    const int fitting = largest_fitting(plan, options);
    std::set<int> choices = {1, chosen, model.layers};
    if (fitting > 0) choices.insert(fitting);
    for (const int k : choices) {
        if (k == chosen) plan.chosen = plan.choices.size();
        plan.choices.push_back(k == chosen ? row : plan_blocks(plan, options, k, 0));
    }
    warn(plan, options, fitting);
    return plan;
}

std::string to_text(const Plan& plan) {
    std::string text = model_text(plan) + "\n" + chosen_text(plan) + "\n" + choices_text(plan);
    for (const std::string& warning : plan.warnings) text += fmt::format("warning: {}\n", warning);
    return text;
}

} // namespace lolcats
