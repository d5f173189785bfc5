#pragma once
/// The programs of a conversion as their --help, manual pages and completion name them.
#include <array>

namespace lolcats {

struct ProgramText {
    const char* name;
    const char* purpose;     ///< one line
    const char* description; ///< a paragraph for the manual page
};

namespace programs {

inline constexpr ProgramText plan{
    "lolcats_plan", "works out blocks, disk, memory, arithmetic and hours of a conversion",
    "Reads the model's config.json and prints, before anything runs, what a conversion takes with several numbers of "
    "layers in a block. Runs on one rank."};
inline constexpr ProgramText hidden{
    "lolcats_hidden", "stage 0: stores the hidden states that enter each block",
    "The teacher runs over the tokens; the residual stream that enters each block of layers is written to WORK/hidden. "
    "Ranks are pipeline stages and, if there are more, replicas that share the sequences."};
inline constexpr ProgramText block{
    "lolcats_block", "stage 1: attention transfer, block by block",
    "In each layer of a block, feature maps and mixing factors of the linear attention learn to give the outputs of "
    "the teacher's attention, from the stored hidden states. Blocks are dealt to ranks; with more ranks than blocks, "
    "several ranks share a block's batches. Writes WORK/transfer."};
inline constexpr ProgramText convert{
    "lolcats_convert", "stages 0 and 1 at once: attention transfer on the stream, nothing stored",
    "The teacher's residual stream flows through the ranks, and every block trains on it as it passes. Replaces "
    "lolcats_hidden and lolcats_block, and writes the same WORK/transfer."};
inline constexpr ProgramText lora{
    "lolcats_lora", "stage 2: low-rank adjusting of the linearised model",
    "The students take the place of the teacher's attention, and low-rank adapters of its projections are trained on "
    "the next token. Writes WORK/lora. Ranks are pipeline stages and replicas."};
inline constexpr ProgramText eval{
    "lolcats_eval", "evaluates the teacher or a linearised model",
    "Prints one JSON object: loss, perplexity, and exact match on labelled spans. Ranks are pipeline stages and "
    "replicas."};
inline constexpr ProgramText generate{
    "lolcats_generate", "generates text with the teacher or a linearised model",
    "Answers a file of prompts (token numbers) step by step, with a state of constant size per layer and head. Runs "
    "on one rank."};

inline constexpr std::array all = {plan, hidden, block, convert, lora, eval, generate};

} // namespace programs
} // namespace lolcats
