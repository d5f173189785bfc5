#include "tools/bench/block/settings.hpp"

#include "lolcats/error.hpp"
#include "src/memory_plan.hpp"

#include <CLI/CLI.hpp>

#include <map>

namespace lolcats::bench {

namespace {

/// A published model and how its conversion is divided: layers a GPU, sequences a step, LoRA.
struct Preset {
    ModelConfig model;
    int layers;
    int batch;
    int rank;
    double dropout;
};

ModelConfig llama(int width, int intermediate, int layers, int heads, int head_dim, bool tied) {
    return {.hidden_size = width,
            .intermediate_size = intermediate,
            .layers = layers,
            .heads = heads,
            .kv_heads = 8,
            .head_dim = head_dim,
            .vocab_size = 128256,
            .rms_norm_eps = 1e-5,
            .rope_theta = 5e5,
            .rope_scaling = {},
            .tie_word_embeddings = tied,
            .attention_bias = false,
            .mlp_bias = false,
            .sliding_window = 0};
}

const std::map<std::string, Preset>& presets() {
    static const std::map<std::string, Preset> all = {
        {"405b", {llama(16384, 53248, 126, 128, 128, false), 9, 64, 4, 0.5}},
        {"70b", {llama(8192, 28672, 80, 64, 128, false), 10, 64, 8, 0}},
        {"8b", {llama(4096, 14336, 32, 32, 128, false), 32, 8, 8, 0}},
        {"1b", {llama(2048, 8192, 16, 32, 64, true), 16, 8, 8, 0}}};
    return all;
}

void take_preset(Settings& s) {
    const Preset& preset = presets().at(s.preset);
    s.model = preset.model;
    s.layers = preset.layers;
    s.options.batch_size = preset.batch;
    s.options.lora_rank = preset.rank;
    s.options.lora_alpha = 2 * preset.rank;
    s.options.lora_dropout = preset.dropout;
}

void declare(CLI::App& app, Settings& s) {
    const auto positive = CLI::PositiveNumber;
    app.add_option("--stage", s.stage, "teacher (stage 0), transfer (stages 0 and 1 in one pass) or lora (stage 2)")
        ->check(CLI::IsMember({"teacher", "transfer", "lora"}));
    app.add_option("--model", s.preset, "shape to start from")->check(CLI::IsMember({"405b", "70b", "8b", "1b"}));
    app.add_option("--layers", s.layers, "layers on this GPU")->check(positive);
    app.add_option("--model-layers", s.model.layers, "layers of the whole model")->check(positive);
    app.add_option("--width", s.model.hidden_size, "D")->check(positive);
    app.add_option("--intermediate", s.model.intermediate_size, "F")->check(positive);
    app.add_option("--heads", s.model.heads, "H")->check(positive);
    app.add_option("--kv-heads", s.model.kv_heads, "H_kv")->check(positive);
    app.add_option("--head-dim", s.model.head_dim, "d")->check(positive);
    app.add_option("--vocabulary", s.model.vocab_size, "V")->check(positive);
    app.add_option("--length", s.options.plan_length, "T")->check(positive);
    app.add_option("--window", s.options.window, "w")->check(positive);
    app.add_option("--feature-dim", s.options.feature_dim, "f; default: half of d")->check(positive);
    app.add_option("--attention", s.options.attention, "near keys")
        ->check(CLI::IsMember({"terrace", "sliding", "none"}));
    app.add_option("--xent-factor", s.options.xent_factor, "weight of the cross-entropy")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--batch-size", s.options.batch_size, "sequences in an optimiser step")->check(positive);
    app.add_option("--micro-batch", s.options.micro_batch, "sequences computed at once")->check(positive);
    app.add_option("--activation-memory", s.options.activation_memory,
                   "bytes that activations are kept in until LoRA's backward pass; the others are recomputed")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--lora-rank", s.options.lora_rank, "r")->check(positive);
    app.add_option("--lora-dropout", s.options.lora_dropout, "dropout of the adapters' input")
        ->check(CLI::Range(0., .99));
    app.add_option("--dtype", s.options.dtype, "type of the frozen weights")->check(CLI::IsMember({"bf16", "fp8"}));
    app.add_option("--gemm", s.options.gemm, "arithmetic of matrix products; fp8 with --dtype fp8")
        ->check(CLI::IsMember({"auto", "f32", "bf16", "fp8"}));
    app.add_option("--steps", s.steps, "optimiser steps that are timed")->check(positive);
    app.add_option("--square", s.square, "side of the square product that is timed for the peak")->check(positive);
    app.add_flag("--timing-only", s.timing_only, "print only the time of a step, as JSON");
    app.add_option("--plan-tokens", s.options.plan_tokens, "tokens the projection is for")->check(positive);
    app.add_option("--json", s.json, "file for the figures");
}

void check(const Settings& s) {
    if (s.model.heads % s.model.kv_heads != 0)
        fail("--heads {}: not a multiple of --kv-heads {}", s.model.heads, s.model.kv_heads);
    if (s.layers > s.model.layers)
        fail("--layers {}: the whole model has {}; raise --model-layers", s.layers, s.model.layers);
    if (s.options.batch_size % s.options.micro_batch != 0)
        fail("--batch-size {}: not a multiple of --micro-batch {}", s.options.batch_size, s.options.micro_batch);
    if (s.options.gemm == "fp8" && s.options.dtype != "fp8") fail("--gemm fp8: give --dtype fp8 with it");
}

} // namespace

int Settings::layers_kept() const {
    return lolcats::layers_kept(make_plan(model, options), options, layers, in_flight());
}

int Settings::layers_recomputed() const {
    return lolcats::layers_recomputed(make_plan(model, options), options, layers, in_flight());
}

bool read_settings(int argc, char** argv, Settings& settings, std::string& text) {
    // The preset comes first, whatever the order on the command line.
    for (int i = 1; i + 1 < argc; ++i)
        if (std::string(argv[i]) == "--model" && presets().contains(argv[i + 1])) settings.preset = argv[i + 1];
    take_preset(settings);
    CLI::App app("Times a block of decoder layers with random weights: the teacher, attention transfer, or LoRA.",
                 "block_405b");
    app.option_defaults()->always_capture_default();
    declare(app, settings);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        text = app.help();
        return false;
    } catch (const CLI::ParseError& error) {
        fail("{} (--help lists the options)", error.what());
    }
    settings.options.block_layers = settings.layers;
    check(settings);
    return true;
}

} // namespace lolcats::bench
