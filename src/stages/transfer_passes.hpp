#pragma once
/// The loop of attention transfer: batch after batch of the residual stream goes through a rank's blocks, and each of
/// them trains on it as it passes.
#include "src/stages/block_stream.hpp"
#include "src/stages/block_training.hpp"

#include <set>
#include <vector>

namespace lolcats {

struct Transferred {
    bool stopped = false; ///< before the end, with checkpoints written
    FirstBatch first;
    std::int64_t sequences = 0;     ///< that went by in all, those of evaluations included
    std::int64_t micro_batches = 0; ///< of them that this rank ran
};

/// Trains consecutive blocks and writes their files; those that are `finished` only let the stream through. Collective
/// over `group`, the ranks that share the batches.
Transferred train_blocks(const TransferRun& run, Range blocks, const std::set<int>& finished, ArrayCommunicator& group,
                         BlockStream& stream, Interrupt& interrupt, TimeSplit& time);

} // namespace lolcats
