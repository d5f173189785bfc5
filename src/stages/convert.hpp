#pragma once
/// Stages 0 and 1 at once, with no hidden state on the disk.
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// The teacher's residual stream flows through a mesh pipeline x data, and every block trains on it as it passes.
/// Writes what lolcats_block would write after lolcats_hidden, WORK/transfer/block_XX.safetensors and .jsonl.
/// Collective.
void convert_streaming(const Options& options, const Communicator& world);

} // namespace lolcats
