#pragma once
/// The memory that a stage's arrays take, beside what lolcats_plan's formulas predict.
#include "src/array_memory.hpp"
#include "src/memory_plan.hpp"
#include "src/stages/run_input.hpp"

#include <nlohmann/json_fwd.hpp>

namespace lolcats {

/// Where the rank stands in its pipeline.
Neighbours neighbours(const Mesh& mesh);

/// The plan of the current run, for src/memory_plan.hpp.
struct RunPlan {
    RunPlan(const RunInput& input, const Options& options, Arithmetic arithmetic, int ranks);

    Options options; ///< with the arithmetic that was settled on
    Plan plan;
};

/// Throws Error, the same on all ranks, unless the predicted arrays (bytes, of this rank) fit in its GPU, or those of
/// all ranks of a node in the node. Collective.
void require_room(const Communicator& world, double predicted);

class ArrayReport {
public:
    /// One line on the console; returns the bytes of the rank that needed most: counted since construction, and
    /// predicted. `predicted`: this rank's. Collective.
    nlohmann::ordered_json finish(const Communicator& world, double predicted) const;

private:
    ArrayMemory memory_;
};

} // namespace lolcats
