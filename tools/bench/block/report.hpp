#pragma once
/// The benchmark's figures, as text and as JSON.
#include "tools/bench/block/block_work.hpp"
#include "tools/bench/block/kernel_times.hpp"
#include "tools/bench/block/peaks.hpp"

#include "lolcats/plan.hpp"

#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lolcats::bench {

struct Figures {
    std::string machine;
    std::string arithmetic;
    Peaks peaks;
    double passes = 1;        ///< forward passes a step is worth
    double seconds = 0;       ///< of one step, whole
    double split_seconds = 0; ///< of one step, with its kernels waited for one by one
    double optimizer_seconds = 0;
    double head_seconds = 0;                               ///< of one micro-batch; 0 where the stage needs none
    std::map<std::string, KernelTimes::Entry> times;       ///< of one step
    Works work;                                            ///< of one step
    std::vector<std::pair<std::string, double>> predicted; ///< bytes of arrays
    double array_bytes = 0;                                ///< measured, largest
    double processor_bytes = 0;                            ///< all that the GPU has in use; 0: not known
    double block_bytes = 0;                                ///< of them, since before the block was made
};

/// Tokens a second of this GPU, and the conversion's projection.
struct Projection {
    double tokens_per_second; ///< of these layers
    double bubble;            ///< share of the time that a pipeline's rank waits
    double per_gpu;           ///< tokens a second of the whole model, divided by the GPUs
    double hours;             ///< of plan_tokens on the GPUs of one pipeline
};

Projection project(const Settings& settings, const Figures& figures);

std::string to_text(const Settings& settings, const Plan& plan, const Figures& figures);
nlohmann::ordered_json to_json(const Settings& settings, const Plan& plan, const Figures& figures);

} // namespace lolcats::bench
