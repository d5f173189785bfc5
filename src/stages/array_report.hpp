#pragma once
/// What the arrays of a stage take, beside what lolcats_plan's formulas foretell.
#include "src/array_memory.hpp"
#include "src/memory_plan.hpp"
#include "src/stages/run_input.hpp"

#include <nlohmann/json_fwd.hpp>

namespace lolcats {

/// The plan of a run under way, for src/memory_plan.hpp.
struct RunPlan {
    RunPlan(const RunInput& input, const Options& options, Arithmetic arithmetic, int ranks);

    Options options; ///< with the arithmetic that was settled on
    Plan plan;
};

/// Throws Error, the same on all ranks, unless the arrays that are foretold (of this rank, in bytes) fit in its GPU, or
/// those of all ranks of a node in the node. Collective.
void require_room(const Communicator& world, double foretold);

class ArrayReport {
public:
    /// One line on the console; returns the bytes of the rank that needed most, counted from construction on and
    /// foretold. `foretold`: this rank's. Collective.
    nlohmann::ordered_json finish(const Communicator& world, double foretold) const;

private:
    ArrayMemory memory_;
};

} // namespace lolcats
