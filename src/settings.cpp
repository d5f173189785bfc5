#include "src/settings.hpp"

#include "kernels/feature_maps.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace lolcats {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double largest_int = std::numeric_limits<int>::max();
constexpr Bounds not_negative{0, infinity, false, true};
constexpr Bounds positive{0, infinity, true, true};
constexpr Bounds fraction{0, 1, false, true};
constexpr Bounds any_count{0, largest_int};
constexpr Bounds any_size{1, largest_int};

// The one table of settings, a group a function: order, names, help texts, choices and ranges.

std::vector<Setting> files_settings(Options& o) {
    const auto* files = "Files";
    return {
        {"model", &o.model, files, "Hugging Face directory of the teacher"},
        {"tokens", &o.tokens, files, "HDF5 token store: /tokens int32 [n,T], optional /labels and /distances"},
        {"work", &o.work, files, "directory that receives hidden/, transfer/ and lora/"},
        {"feature-maps", &o.feature_maps, files, "safetensors file or directory of trained feature maps"},
        {"adapter", &o.adapter, files, "PEFT directory of a trained LoRA adapter"},
        {"init-feature-maps", &o.init_feature_maps, files, "feature maps that training starts from"},
        {"init-adapter", &o.init_adapter, files, "adapter that LoRA training starts from"},
        {"dump-gradients", &o.dump_gradients, files, "HDF5 file to write the gradients of the first batch's loss to"},
        {"save-logits", &o.save_logits, files, "HDF5 file to write /logits [n,T,V] to"},
        {"done-file", &o.done_file, files, "file written at the very end, if all went well and nothing is left to do"},
    };
}

std::vector<Setting> method_settings(Options& o) {
    const auto* method = "Method";
    return {
        {"block-layers",
         &o.block_layers,
         method,
         "k, decoder layers in a block; 0: all of them (joint)",
         {},
         any_count},
        {"window", &o.window, method, "w, width of the softmax window in tokens", {}, {1, 1 << 20}},
        {"attention",
         &o.attention,
         method,
         "attention of the model: the teacher's, or the student's with this kind of window",
         {"teacher", "terrace", "sliding", "none"}},
        {"feature-map", &o.feature_map, method, "feature map of the linear attention", feature_map_names()},
        {"feature-dim",
         &o.feature_dim,
         method,
         "f; 0: half the head dimension, all of it if the map is square",
         {},
         {0, 1 << 16}},
        {"feature-map-init", &o.feature_map_init, method, "initial feature maps", {"uniform", "identity"}},
        {"tie-feature-maps", &o.tie_feature_maps, method, "one map for queries and keys"},
        {"affine-attention-factors", &o.affine_attention_factors, method,
         "weigh the linear branch by 1 - gamma, not 1"},
        {"recipe",
         &o.recipe,
         method,
         "defaults of the options you leave out: the paper's, or those that measured best on the tiny teacher "
         "(docs/quality.md)",
         {"paper", "robust"}},
        {"window-dropout",
         &o.window_dropout,
         method,
         "initial share of training batches that window dropout changes; it falls to 0 at the end (arXiv 2510.05901)",
         {},
         {0, 1}},
        {"window-dropout-kind",
         &o.window_dropout_kind,
         method,
         "what window dropout does to a batch: branch removes the window, size draws a window from 1 to w",
         {"branch", "size"}},
        {"keep-softmax-layers",
         &o.keep_softmax_layers,
         method,
         "number of layers that keep softmax attention: those of the highest transfer loss (hybrids, "
         "arXiv 2410.10254)",
         {},
         any_count},
        {"softmax-layers", &o.softmax_layers, method,
         "numbers of the layers that keep softmax attention, separated by commas"},
    };
}

std::vector<Setting> numerics_settings(Options& o) {
    const auto* numerics = "Numerics";
    return {
        {"dtype",
         &o.dtype,
         numerics,
         "type of the frozen weights; with bf16 and fp8, stages 0 and 1 also round the residual stream to bf16 at "
         "every layer",
         {"f32", "bf16", "fp8"}},
        {"hidden-dtype",
         &o.hidden_dtype,
         numerics,
         "type of stored hidden states; auto: f32 with dtype f32, else bf16",
         {"auto", "f32", "bf16"}},
        {"gemm",
         &o.gemm,
         numerics,
         "arithmetic of matrix products; auto: exact with f32 weights, else the faster of f32 and bf16; fp8: "
         "activations in 8 bits, too",
         {"auto", "exact", "f32", "bf16", "fp8"}},
        {"seed", &o.seed, numerics, "seed of shuffling, initial feature maps and adapters, dropout and sampling"},
    };
}

std::vector<Setting> data_settings(Options& o) {
    const auto* data = "Data";
    return {
        {"validation",
         &o.validation,
         data,
         "number of sequences, the first ones, held out from training for evaluation",
         {},
         any_count},
        {"sequences", &o.sequences, data, "number of sequences to use, the first ones; 0: all", {}, any_count},
        {"shuffle", &o.shuffle, data, "order the training sequences anew in every epoch, by the seed"},
    };
}

std::vector<Setting> training_settings(Options& o) {
    const auto* training = "Training";
    return {
        {"batch-size",
         &o.batch_size,
         training,
         "sequences in an optimiser step; prompts that lolcats_generate works on at once",
         {},
         any_size},
        {"micro-batch", &o.micro_batch, training, "sequences computed at once", {}, any_size},
        {"activation-memory",
         &o.activation_memory,
         training,
         "bytes of activations that a rank may keep for LoRA's backward pass; those of other layers are recomputed",
         {},
         not_negative},
        {"steps", &o.steps, training, "optimiser steps; 0: as many as --epochs takes", {}, any_count},
        {"epochs", &o.epochs, training, "passes over the data, if --steps is 0", {}, any_size},
        {"lr", &o.lr, training, "learning rate; 0: 1e-2 for attention transfer, 1e-4 for LoRA", {}, not_negative},
        {"min-lr", &o.min_lr, training, "lowest learning rate of the plateau schedule", {}, not_negative},
        {"beta1", &o.beta1, training, "AdamW's decay of the first moment", {}, fraction},
        {"beta2", &o.beta2, training, "AdamW's decay of the second moment", {}, fraction},
        {"epsilon", &o.epsilon, training, "AdamW's epsilon", {}, positive},
        {"weight-decay", &o.weight_decay, training, "AdamW's decoupled weight decay", {}, not_negative},
        {"clip", &o.clip, training, "2-norm that gradients are clipped to; 0: no clipping", {}, not_negative},
        {"schedule",
         &o.schedule,
         training,
         "schedule of the learning rate; plateau: lowered when the evaluated loss stops falling",
         {"plateau", "constant"}},
        {"plateau-factor",
         &o.plateau_factor,
         training,
         "factor that the plateau schedule multiplies the learning rate by",
         {},
         {0, 1, true, true}},
        {"plateau-patience",
         &o.plateau_patience,
         training,
         "evaluations without improvement before the plateau schedule lowers the learning rate",
         {},
         any_count},
        {"eval-every", &o.eval_every, training, "optimiser steps between evaluations", {}, any_size},
        {"log-every", &o.log_every, training, "optimiser steps between lines on the console", {}, any_size},
    };
}

std::vector<Setting> loss_settings(Options& o) {
    const auto* training = "Training";
    return {
        {"mse-factor",
         &o.mse_factor,
         training,
         "weight of the attention outputs' mean squared error",
         {},
         not_negative},
        {"xent-factor", &o.xent_factor, training, "weight of the attention weights' cross-entropy", {}, not_negative},
        {"far-xent-factor",
         &o.far_xent_factor,
         training,
         "weight of the cross-entropy of attention weights over far keys only (Hedgehog, arXiv 2402.04347)",
         {},
         not_negative},
        {"layer-loss",
         &o.layer_loss,
         training,
         "plain: squared error; normalized: squared error divided by the mean square of the teacher's output",
         {"plain", "normalized"}},
    };
}

std::vector<Setting> lora_settings(Options& o) {
    const auto* lora = "LoRA";
    const Words projections = {"q_proj", "k_proj", "v_proj", "o_proj"};
    return {
        {"lora-rank", &o.lora_rank, lora, "r, rank of the adapters", {}, {1, 1 << 16}},
        {"lora-alpha", &o.lora_alpha, lora, "alpha; an adapter is scaled by alpha / r", {}, positive},
        {"lora-dropout", &o.lora_dropout, lora, "dropout probability of the adapters' input", {}, fraction},
        {"lora-modules", &o.lora_modules, lora, "projections that get an adapter, separated by commas", projections},
        {"train-feature-maps", &o.train_feature_maps, lora,
         "LoRA training also trains feature maps and mixing factors"},
        {"kl-factor",
         &o.kl_factor,
         lora,
         "weight of the KL divergence from the teacher's next-token distribution in the loss of LoRA (distillation, "
         "arXiv 1503.02531)",
         {},
         not_negative},
    };
}

std::vector<Setting> evaluation_settings(Options& o) {
    const auto* evaluation = "Evaluation";
    return {
        {"branch",
         &o.branch,
         evaluation,
         "part of the student's attention to evaluate; linear falls back to the window for queries without far keys; "
         "window+sinks adds the first --sinks keys (StreamingLLM, arXiv 2309.17453)",
         {"both", "window", "linear", "window+sinks"}},
        {"sinks",
         &o.sinks,
         evaluation,
         "number of first keys that --branch window+sinks adds to the window",
         {},
         any_size},
        {"attention-mass", &o.attention_mass, evaluation, "report the share of attention on far keys, layer by layer"},
    };
}

std::vector<Setting> restart_settings(Options& o) {
    const auto* restart = "Restart";
    return {
        {"checkpoint-every",
         &o.checkpoint_every,
         restart,
         "optimiser steps between checkpoints, by default more where writing them would take over 1/64 of the time; "
         "0: only when told to stop",
         {},
         any_count},
        {"keep-checkpoints", &o.keep_checkpoints, restart, "number of newest checkpoints to keep", {}, any_size},
        {"wall-time", &o.wall_time, restart,
         "SECONDS or [D-]HH:MM:SS that the run must end in; it stops before, with status 85"},
        {"fresh", &o.fresh, restart, "start anew, whatever earlier runs finished or left"},
        {"verify", &o.verify, restart,
         "lolcats_hidden checks the stored hidden states and computes damaged sequences again"},
        {"take-over", &o.take_over, restart, "treat the last attempt on the work directory as dead"},
        {"stale-after",
         &o.stale_after,
         restart,
         "seconds without a sign of life after which the last attempt counts as dead",
         {},
         {3, infinity, false, true}},
    };
}

std::vector<Setting> generation_settings(Options& o) {
    const auto* generation = "Generation";
    return {
        {"prompts", &o.prompts, generation, "JSON lines {\"tokens\": [...]}, or an HDF5 token store"},
        {"max-new-tokens", &o.max_new_tokens, generation, "most tokens to generate for a prompt", {}, any_size},
        {"temperature",
         &o.temperature,
         generation,
         "temperature of sampling; 0: always the most likely token",
         {},
         not_negative},
        {"top-p",
         &o.top_p,
         generation,
         "sample among the most likely tokens that together hold this probability",
         {},
         {0, 1, true}},
        {"top-k", &o.top_k, generation, "sample among this many most likely tokens; 0: all", {}, any_count},
        {"stop-token", &o.stop_tokens, generation,
         "token ids that end a text, separated by commas, or none; by default the model's eos_token_id"},
        {"save-state", &o.save_state, generation, "HDF5 file to write the final state of each text to"},
        {"load-state", &o.load_state, generation,
         "HDF5 file written by --save-state; each prompt continues from its state"},
    };
}

std::vector<Setting> machine_settings(Options& o) {
    const auto* machine = "Machine";
    return {
        {"pipeline-ranks",
         &o.pipeline_ranks,
         machine,
         "ranks that the layers are spread over; 0: the largest divisor of the number of ranks that is at most the "
         "number of blocks",
         {},
         any_count},
        {"communication",
         &o.communication,
         machine,
         "what carries arrays between ranks; auto: NCCL between GPUs, else MPI",
         {"auto", "nccl", "mpi"}},
        {"communication-timeout",
         &o.communication_timeout,
         machine,
         "seconds that a rank waits for another's array before the run ends",
         {},
         positive},
        {"weights",
         &o.weights,
         machine,
         "read: every replica of a pipeline stage reads its weights; broadcast: one reads for all; auto: broadcast on "
         "GPUs and over several nodes, else read",
         {"auto", "read", "broadcast"}},
    };
}

std::vector<Setting> plan_settings(Options& o) {
    const auto* plan = "lolcats_plan";
    return {
        {"plan-check", &o.plan_check, plan,
         "count the tokens of --tokens; fail if memory or the free disk space of --work is too small"},
        {"plan-streaming", &o.plan_streaming, plan,
         "--plan-check is for lolcats_convert, which stores no hidden states: disk space does not matter"},
        {"plan-tokens", &o.plan_tokens, plan, "training tokens", {}, positive},
        {"plan-length", &o.plan_length, plan, "tokens in a sequence, T", {}, any_size},
        {"plan-ranks", &o.plan_ranks, plan, "ranks of the run; 0: one a block", {}, any_count},
        {"plan-memory", &o.plan_memory, plan, "bytes of memory a rank has", {}, positive},
        {"plan-flops", &o.plan_flops, plan, "sustained FLOP/s of a rank", {}, positive},
        {"plan-bandwidth", &o.plan_bandwidth, plan, "file-system bytes/s, all ranks together", {}, positive},
        {"plan-link", &o.plan_link, plan, "bytes/s from a rank to the next, for lolcats_convert", {}, positive},
        {"plan-measured", &o.plan_measured, plan, "run.json of lolcats_convert to compare the plan with"},
    };
}

} // namespace

std::vector<Setting> settings_of(Options& o) {
    std::vector<Setting> all;
    for (const auto group :
         {files_settings, method_settings, numerics_settings, data_settings, training_settings, loss_settings,
          lora_settings, evaluation_settings, restart_settings, generation_settings, machine_settings, plan_settings})
        for (Setting& setting : group(o)) all.push_back(std::move(setting));
    return all;
}

std::string join(const Words& words, const char* separator) {
    return fmt::format("{}", fmt::join(words, separator));
}

std::string describe(const Bounds& bounds) {
    const std::string low = fmt::format("{} {:.10g}", bounds.low_open ? "greater than" : "at least", bounds.low);
    if (!std::isfinite(bounds.high)) return low;
    return fmt::format("{} and {} {:.10g}", low, bounds.high_open ? "less than" : "at most", bounds.high);
}

std::string type_name(const Setting& setting) {
    if (!setting.choices.empty()) return fmt::format("{{{}}}", join(setting.choices, ","));
    return std::visit(Overloaded{[](const std::string*) { return "TEXT"; }, [](const Words*) { return "LIST"; },
                                 [](const int*) { return "INT"; }, [](const std::uint64_t*) { return "INT"; },
                                 [](const double*) { return "NUMBER"; }, [](const bool*) { return ""; }},
                      setting.value);
}

std::string text_of(const Setting& setting) {
    return std::visit(Overloaded{[](const std::string* value) { return *value; },
                                 [](const Words* value) { return join(*value, ","); },
                                 [](const bool* value) -> std::string { return *value ? "true" : "false"; },
                                 [](const auto* value) { return fmt::format("{}", *value); }},
                      setting.value);
}

} // namespace lolcats
