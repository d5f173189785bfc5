#pragma once
/// What a conversion will cost, worked out before anything runs: blocks, parameters, disk, memory, arithmetic, hours.
#include "lolcats/model_config.hpp"
#include "lolcats/options.hpp"

#include <array>
#include <string>
#include <vector>

namespace lolcats {

/// The three stages: hidden states, attention transfer, LoRA.
inline constexpr int plan_stages = 3;

/// The cost of one choice of k. Per-rank figures are those of the most loaded rank.
struct BlockPlan {
    int block_layers; ///< k
    int blocks;       ///< c = ceil(L / k)
    int ranks;        ///< all of them in one pipeline, or several pipelines side by side
    int pipeline_ranks;
    int layers_per_rank;
    double block_weight_bytes;                     ///< the decoder layers of one (whole) block
    double rank_weight_bytes;                      ///< the decoder layers a rank owns
    double store_bytes_paper;                      ///< hidden states as the paper counts them: L/k stored inputs
    double store_bytes;                            ///< as this program stores them: one input a block, none for block 0
    std::array<double, plan_stages> memory;        ///< bytes a rank needs
    std::array<double, plan_stages> compute_hours; ///< in stage 2 with the bubble of its pipeline
    std::array<double, plan_stages> io_hours;      ///< weights read; hidden states written (0) or read (1)
    std::array<double, plan_stages> hours;         ///< the sum, as if nothing overlapped

    [[nodiscard]] double largest_memory() const;
};

struct Plan {
    ModelConfig model;
    double tokens;     ///< training tokens, of one epoch
    int length;        ///< T
    double memory;     ///< bytes a rank has
    double flops;      ///< sustained FLOP/s a rank
    double bandwidth;  ///< file-system bytes/s
    double parameters; ///< of the whole model
    double layer_parameters;
    double weight_bytes;               ///< of the whole model, in memory
    double checkpoint_bytes;           ///< of the whole model, as it is read
    double layer_weight_bytes;         ///< of a decoder layer, in memory
    double head_weight_bytes;          ///< of the LM head, in memory
    double feature_map_parameters;     ///< feature maps and mixing factors
    double lora_parameters;            ///< of the whole model
    double flops_per_token_layer;      ///< 2 (D H d + 2 D H_kv d + H d D + 3 D F)
    std::vector<BlockPlan> choices;    ///< increasing k: 1, the chosen one, the largest that fits, joint
    std::size_t chosen;                ///< index of --block-layers in `choices`
    std::vector<std::string> warnings; ///< one line each
};

/// f: --feature-dim, or what is usual for the map.
int feature_dim_of(const ModelConfig& model, const Options& options);

/// Parameters of one layer's maps of queries and keys and its mixing factors.
double layer_map_parameters(const ModelConfig& model, const Options& options);

/// Throws Error if the settings cannot describe a run of this model.
Plan make_plan(const ModelConfig& model, const Options& options);

/// Sets options.plan_tokens and plan_length to what the token store holds. Throws Error where it cannot be read.
void measure_tokens(const ModelConfig& model, Options& options);

/// Throws Error unless a rank's memory holds its part of every stage, and the file system of options.work has room for
/// the hidden states that are not stored there yet.
void check_plan(const Plan& plan, const Options& options);

/// The plan as an aligned text table.
std::string to_text(const Plan& plan);

} // namespace lolcats
