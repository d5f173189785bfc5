#pragma once
/// Stage 1: attention transfer, block by block.
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// Trains every block's students and writes WORK/transfer/block_XX.safetensors and .jsonl. Blocks are dealt to ranks in
/// turn; with more ranks than blocks, the ranks of a block share its batches. Collective.
void transfer_attention(const Options& options, const Communicator& world);

} // namespace lolcats
