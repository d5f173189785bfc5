/// Prints what a conversion will cost before anything is run.
#include "lolcats/error.hpp"
#include "lolcats/plan.hpp"
#include "lolcats/program.hpp"
#include "lolcats/stream_plan.hpp"
#include "src/comm/communicator.hpp"

#include <iostream>

namespace {

void compare(const lolcats::ModelConfig& model, const lolcats::Options& options, const lolcats::Communicator& world) {
    bool agrees = false;
    const lolcats::MeasuredStream measured(options.plan_measured);
    const std::string text = lolcats::compare_streaming(model, options, measured, agrees);
    if (world.rank() == 0) std::cout << text;
    if (!agrees)
        lolcats::fail(
            "{}: bytes or memory are not within 15 % of what was predicted; plan with the options of that run, "
            "or report it",
            options.plan_measured);
}

} // namespace

int main(int argc, char** argv) {
    using namespace lolcats;
    const auto stage = [](const Options& options, const Communicator& world) {
        if (options.model.empty()) fail("model is not set: give --model DIRECTORY or --model CONFIG.JSON");
        const ModelConfig model = read_model_config(options.model);
        if (!options.plan_measured.empty()) return compare(model, options, world);
        Options counted = options;
        if (options.plan_check) measure_tokens(model, counted);
        const Plan plan = make_plan(model, counted);
        if (world.rank() == 0) std::cout << to_text(plan) << '\n' << to_text(plan_streaming(plan, counted));
        if (options.plan_check) check_plan(plan, counted);
    };
    return run_program(argc, argv, programs::plan, stage, Arrays::unused);
}
