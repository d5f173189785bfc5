#pragma once
/// Every setting of a run, shared by all programs, so that one configuration file serves the whole conversion.
///
/// A field named `a_b` is the command-line option `--a-b` and the TOML key `a-b` (`stop_tokens` is `stop-token`). Zero
/// or empty means "derive it", as said beside the field. src/settings.cpp holds the one table of names, help texts and
/// ranges.
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
    std::string done_file;         ///< file written once all is done, as a launcher's status can be wrong

    // Method
    int block_layers = 0;                       ///< k, decoder layers in a block; 0: all of them (joint)
    int window = 64;                            ///< w, width of the softmax window
    std::string attention = "terrace";          ///< teacher | terrace | sliding | none
    std::string feature_map = "hedgehog";       ///< see kernels/feature_maps.hpp
    int feature_dim = 0;                        ///< f; 0: half the head dimension; all of it if the map is square
    std::string feature_map_init = "uniform";   ///< uniform | identity
    bool tie_feature_maps = false;              ///< one map for queries and keys
    bool affine_attention_factors = false;      ///< weigh the linear branch by 1 - gamma instead of 1
    std::string recipe = "paper";               ///< paper | robust: what settings that were left open are
    double window_dropout = 0;                  ///< share of batches trained without their window, at first
    std::string window_dropout_kind = "branch"; ///< branch (every key is far) | size (a window drawn from 1 to w)
    int keep_softmax_layers = 0;                ///< layers of the highest transfer loss that keep softmax attention
    std::vector<std::string> softmax_layers;    ///< numbers of the layers that do, in place of a count

    // Numerics
    std::string dtype = "bf16";        ///< f32 | bf16 | fp8: type of the frozen weights and the residual stream
    std::string hidden_dtype = "auto"; ///< auto (as the residual stream) | f32 | bf16: of stored hidden states
    std::string gemm = "auto";         ///< auto | exact | f32 | bf16 | fp8: arithmetic of matrix products
    std::uint64_t seed = 0;

    // Data
    int validation = 0;   ///< first sequences held out from training for evaluation
    int sequences = 0;    ///< use only the first so many sequences; 0: all
    bool shuffle = false; ///< new order every epoch, from the seed

    // Training
    int batch_size = 8;             ///< sequences in an optimiser step; prompts generated from at once
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
    double far_xent_factor = 0;       ///< weight of the cross-entropy among far keys only
    std::string layer_loss = "plain"; ///< plain | normalized: by the mean square of the teacher's output

    // LoRA
    int lora_rank = 8;
    double lora_alpha = 16;
    double lora_dropout = 0;
    std::vector<std::string> lora_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
    bool train_feature_maps = false; ///< LoRA stage also trains the feature maps and mixing factors
    double kl_factor = 0;            ///< weight of the divergence from the teacher's next-token distribution

    // Evaluation
    std::string branch = "both"; ///< both | window | linear | window+sinks: what of the student's attention counts
    int sinks = 4;               ///< first keys that window+sinks keeps near
    bool attention_mass = false; ///< report how much of the attention goes to far keys, by layer

    // Restart
    int checkpoint_every = 10; ///< optimiser steps between checkpoints; 0: only when told to stop
    int keep_checkpoints = 2;  ///< newest checkpoints that are kept
    std::string wall_time;     ///< time after which the run stops by itself, "SECONDS" or "[D-]HH:MM:SS"; empty: none
    bool fresh = false;        ///< ignore what earlier runs finished or left
    bool verify = false;       ///< stage 0 checks stored sequences and computes damaged ones again
    bool take_over = false;    ///< the work directory's last attempt is known to be dead
    double stale_after = 30;   ///< seconds without a sign of life after which an attempt counts as dead

    // Generation
    std::string prompts;                  ///< JSON lines {"tokens": [...]}, or an HDF5 token store
    int max_new_tokens = 64;              ///< tokens generated for a prompt, unless it stops before
    double temperature = 0;               ///< 0: greedy
    double top_p = 1;                     ///< sample among the most likely tokens that hold this much probability
    int top_k = 0;                        ///< sample among so many; 0: all
    std::vector<std::string> stop_tokens; ///< ids that end a text, or none; empty: the model's eos_token_id
    std::string save_state;               ///< HDF5 file for the states that the texts end in
    std::string load_state;               ///< states that they go on from

    // Machine
    int pipeline_ranks = 0; ///< ranks the layers are spread over; 0: as many as divide the ranks and have a block
    std::string communication = "auto";  ///< auto (NCCL between GPUs) | nccl | mpi: what carries arrays between ranks
    double communication_timeout = 1800; ///< seconds that a rank waits for another's array
    std::string weights = "auto";        ///< auto | read (every rank) | broadcast (by the one that reads them)

    // lolcats_plan
    bool plan_check = false;      ///< count the tokens, and fail where memory or disk will not do
    double plan_tokens = 20e6;    ///< training tokens
    int plan_length = 1024;       ///< tokens in a sequence, T
    int plan_ranks = 0;           ///< 0: one a block
    double plan_memory = 80e9;    ///< bytes of memory a rank
    double plan_flops = 400e12;   ///< sustained FLOP/s a rank
    double plan_bandwidth = 10e9; ///< file-system bytes/s, all ranks together
    double plan_link = 25e9;      ///< bytes/s from a rank to the next
    std::string plan_measured;    ///< WORK/transfer/run.json of lolcats_convert, to hold the plan against

    std::set<std::string> given; ///< names (as on the command line, no dashes) that the user set in any way

    [[nodiscard]] bool is_given(const std::string& name) const { return given.contains(name); }
};

/// options.wall_time in seconds; infinite where none is set. Error if it is not a time.
double wall_seconds(const Options& options);

/// Reads the configuration file and the command line. Unknown keys, values out of range and missing files throw Error;
/// the nearest known key is named. `--help` and `--version` put what is to be printed (by one rank) in `text` and
/// return false: the program has nothing left to do.
bool parse_options(int argc, const char* const* argv, const ProgramText& program, Options& options, std::string& text);

/// The resolved settings in the order of their table, for the run deck stored in what is written.
nlohmann::ordered_json to_json(const Options& options);

/// The resolved settings as an aligned text table; settings the user gave are marked.
std::string to_table(const Options& options);

} // namespace lolcats
