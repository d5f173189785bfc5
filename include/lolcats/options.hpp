#pragma once
/// Every setting of a run, shared by all programs, so that one configuration file serves the whole conversion.
///
/// A field named `a_b` is the command-line option `--a-b` and the TOML key `a-b` (`stop_tokens` is `stop-token`). Zero
/// or empty means that the program derives it, as said beside the field. src/settings.cpp holds the one table of names,
/// help texts and ranges.
#include "lolcats/programs.hpp"

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

namespace lolcats {

struct Options {
    // Files
    std::string model;             ///< Hugging Face directory of the teacher
    std::string tokens;            ///< HDF5 token store: /tokens int32 [n,T], optional /labels and /distances
    std::string work = "work";     ///< directory that receives hidden/, transfer/ and lora/
    std::string feature_maps;      ///< safetensors file or directory of trained feature maps
    std::string adapter;           ///< PEFT directory of a trained LoRA adapter
    std::string init_feature_maps; ///< feature maps that training starts from
    std::string init_adapter;      ///< adapter that LoRA training starts from
    std::string dump_gradients;    ///< HDF5 file for the gradients of the first batch's loss
    std::string save_logits;       ///< HDF5 file for /logits [n,T,V]
    std::string done_file;         ///< written at the very end if all went well: a launcher's status can be wrong

    // Method
    int block_layers = 0;                       ///< k, decoder layers in a block; 0: all of them (joint)
    int window = 64;                            ///< w, width of the softmax window
    std::string attention = "terrace";          ///< teacher | terrace | sliding | none
    std::string feature_map = "hedgehog";       ///< see kernels/feature_maps.hpp
    int feature_dim = 0;                        ///< f; 0: half the head dimension; all of it if the map is square
    std::string feature_map_init = "uniform";   ///< uniform | identity
    bool tie_feature_maps = false;              ///< one map for queries and keys
    bool affine_attention_factors = false;      ///< weigh the linear branch by 1 - gamma instead of 1
    std::string recipe = "paper";               ///< paper | robust: defaults of the settings that were left out
    double window_dropout = 0;                  ///< share of batches that window dropout changes, at first
    std::string window_dropout_kind = "branch"; ///< branch (no window) | size (a window drawn from 1 to w)
    int keep_softmax_layers = 0;                ///< how many layers, of the highest transfer loss, keep softmax
    std::vector<std::string> softmax_layers;    ///< numbers of the layers that keep softmax, in place of a count

    // Numerics
    std::string dtype = "bf16";        ///< f32 | bf16 | fp8: type of the frozen weights (lolcats/model.hpp)
    std::string hidden_dtype = "auto"; ///< auto (f32 with dtype f32, else bf16) | f32 | bf16: of stored hidden states
    std::string gemm = "auto";         ///< auto | exact | f32 | bf16 | fp8: arithmetic of matrix products
    std::uint64_t seed = 0;

    // Data
    int validation = 0;   ///< number of first sequences held out from training for evaluation
    int sequences = 0;    ///< number of first sequences to use; 0: all
    bool shuffle = false; ///< new order every epoch, from the seed

    // Training
    int batch_size = 8;             ///< sequences in an optimiser step; prompts that generation works on at once
    int micro_batch = 1;            ///< sequences computed at once
    double activation_memory = 1e9; ///< bytes of activations that a rank keeps for LoRA's backward pass
    int steps = 0;                  ///< optimiser steps; 0: epochs over the data
    int epochs = 1;
    double lr = 0; ///< 0: 1e-2 for attention transfer, 1e-4 for LoRA
    double min_lr = 1e-5;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0;
    double clip = 1.0;                ///< 2-norm that gradients are clipped to; 0: no clipping
    std::string schedule = "plateau"; ///< plateau | constant
    double plateau_factor = 0.1;
    int plateau_patience = 10; ///< evaluations without improvement before the rate falls
    int eval_every = 100;      ///< optimiser steps between evaluations
    int log_every = 10;        ///< optimiser steps between lines on the console
    double mse_factor = 1000;
    double xent_factor = 0;
    double far_xent_factor = 0;       ///< weight of the cross-entropy of attention weights over far keys only
    std::string layer_loss = "plain"; ///< plain | normalized (divided by the mean square of the teacher's output)

    // LoRA
    int lora_rank = 8;
    double lora_alpha = 16;
    double lora_dropout = 0;
    std::vector<std::string> lora_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
    bool train_feature_maps = false; ///< LoRA stage also trains the feature maps and mixing factors
    double kl_factor = 0;            ///< weight of the divergence from the teacher's next-token distribution

    // Evaluation
    std::string branch = "both"; ///< both | window | linear | window+sinks: part of the student's attention to evaluate
    int sinks = 4;               ///< number of first keys that window+sinks adds to the window
    bool attention_mass = false; ///< report the share of attention on far keys, by layer

    // Restart
    int checkpoint_every = 10; ///< optimiser steps between checkpoints, at least; 0: only when told to stop
    int keep_checkpoints = 2;  ///< newest checkpoints that are kept
    std::string wall_time;     ///< time after which the run stops by itself, "SECONDS" or "[D-]HH:MM:SS"; empty: none
    bool fresh = false;        ///< ignore what earlier runs finished or left
    bool verify = false;       ///< stage 0 checks stored sequences and computes damaged ones again
    bool take_over = false;    ///< treat the last attempt on the work directory as dead
    double stale_after = 30;   ///< seconds without a sign of life after which an attempt counts as dead

    // Generation
    std::string prompts;                  ///< JSON lines {"tokens": [...]}, or an HDF5 token store
    int max_new_tokens = 64;              ///< most tokens to generate for a prompt
    double temperature = 0;               ///< 0: greedy
    double top_p = 1;                     ///< sample among the most likely tokens that together hold this probability
    int top_k = 0;                        ///< sample among this many most likely tokens; 0: all
    std::vector<std::string> stop_tokens; ///< ids that end a text, or none; empty: the model's eos_token_id
    std::string save_state;               ///< HDF5 file to write the final state of each text to
    std::string load_state;               ///< HDF5 file written by save_state; each prompt continues from its state

    // Machine
    int pipeline_ranks = 0; ///< ranks the layers are spread over; 0: see pipeline_size in src/block_layout.hpp
    std::string communication = "auto";  ///< auto (NCCL between GPUs) | nccl | mpi: what carries arrays between ranks
    double communication_timeout = 1800; ///< seconds that a rank waits for another's array
    std::string weights = "auto";        ///< auto | read (by every replica) | broadcast (by the one that reads)

    // lolcats_plan
    bool plan_check = false;      ///< count the tokens, and fail where memory or disk is too small
    bool plan_streaming = false;  ///< check for lolcats_convert, which stores no hidden states
    double plan_tokens = 20e6;    ///< training tokens
    int plan_length = 1024;       ///< tokens in a sequence, T
    int plan_ranks = 0;           ///< 0: one a block
    double plan_memory = 80e9;    ///< bytes of memory a rank
    double plan_flops = 400e12;   ///< sustained FLOP/s a rank
    double plan_bandwidth = 10e9; ///< file-system bytes/s, all ranks together
    double plan_link = 25e9;      ///< bytes/s from a rank to the next
    std::string plan_measured;    ///< WORK/transfer/run.json of lolcats_convert, to compare the plan with

    std::set<std::string> given; ///< names (as on the command line, no dashes) that the user set in any way

    [[nodiscard]] bool is_given(const std::string& name) const { return given.contains(name); }
};

/// options.wall_time in seconds; infinite where none is set. Error if it is not a time.
double wall_seconds(const Options& options);

/// The type of stored hidden states, f32 or bf16: options.hidden_dtype, or what the residual stream is rounded to.
inline std::string stored_type(const Options& options) {
    const std::string& type = options.hidden_dtype == "auto" ? options.dtype : options.hidden_dtype;
    return type == "f32" ? "f32" : "bf16";
}

/// Reads the configuration file and the command line. Unknown keys, values out of range and missing files throw Error;
/// the nearest known key is named. `--help` and `--version` put what is to be printed (by one rank) in `text` and
/// return false: the program has nothing left to do.
bool parse_options(int argc, const char* const* argv, const ProgramText& program, Options& options, std::string& text);

/// The resolved settings in the order of their table, for the run deck stored in what is written.
nlohmann::ordered_json to_json(const Options& options);

/// The resolved settings as an aligned text table; settings the user gave are marked.
std::string to_table(const Options& options);

} // namespace lolcats
