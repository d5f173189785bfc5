#pragma once
/// The work that is timed: the teacher, or optimiser steps of attention transfer or LoRA, on one GPU's layers, in the
/// program's own code.
#include "lolcats/plan.hpp"
#include "tools/bench/block/block_work.hpp"

#include <memory>
#include <utility>
#include <vector>

namespace lolcats::bench {

class BlockRun {
public:
    virtual ~BlockRun() = default;

    /// One optimiser step: all micro-batches of a batch, norm of the gradient, AdamW. Error if a loss is not finite.
    /// The teacher has the micro-batches only.
    virtual void step() = 0;
    /// A step's work.
    [[nodiscard]] virtual Works work() const = 0;
    /// Forward passes that a step is worth, as lolcats_plan counts.
    [[nodiscard]] virtual double passes() const = 0;
    /// Bytes of arrays that lolcats_plan's formulas predict, by what they hold.
    [[nodiscard]] virtual std::vector<std::pair<std::string, double>> predicted_memory(const Plan& plan) const = 0;
};

std::unique_ptr<BlockRun> make_teacher_run(const Settings& settings, Arithmetic arithmetic);
std::unique_ptr<BlockRun> make_transfer_run(const Settings& settings, Arithmetic arithmetic);
std::unique_ptr<BlockRun> make_lora_run(const Settings& settings, Arithmetic arithmetic);

/// Seconds of the LM head, loss and gradient, for one micro-batch: what the last stage of a pipeline has to do besides.
double head_seconds(const Settings& settings, Arithmetic arithmetic);

StudentForm student_form_of(const Settings& settings);

} // namespace lolcats::bench
