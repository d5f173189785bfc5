#pragma once
/// What a run of attention transfer took: time, split; bytes between ranks; memory. lolcats_plan can be compared with
/// it.
#include "src/stages/array_report.hpp"
#include "src/stages/block_training.hpp"

#include <cstdint>

namespace lolcats {

class RunReport {
public:
    /// Time and memory count from here.
    RunReport();

    struct Traffic {
        int pipeline_ranks;         ///< ranks that the blocks are spread over
        std::int64_t sequences;     ///< that went by, those of evaluations and every epoch included
        std::int64_t micro_batches; ///< of them on this rank
        std::size_t bytes_sent;     ///< by this rank to the next stage
        double array_bytes;         ///< of this rank's arrays, predicted
    };
    /// One line on the console, and the figures in WORK/transfer/run.json. Collective.
    void finish(const std::string& program, const TransferRun& run, const Communicator& world,
                const Traffic& traffic) const;

    TimeSplit time;

private:
    ArrayReport arrays_;
    std::int64_t memory_at_start_;
};

} // namespace lolcats
