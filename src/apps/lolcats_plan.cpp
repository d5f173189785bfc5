/// Prints what a conversion will cost before anything is run.
#include "lolcats/error.hpp"
#include "lolcats/plan.hpp"
#include "lolcats/program.hpp"
#include "src/comm/communicator.hpp"

#include <fmt/format.h>

int main(int argc, char** argv) {
    using namespace lolcats;
    const auto* purpose = "Works out blocks, disk, memory, arithmetic and hours of a conversion.";
    return run_program(argc, argv, "lolcats_plan", purpose, [](const Options& options, const Communicator& world) {
        if (options.model.empty()) fail("model is not set: give --model DIRECTORY or --model CONFIG.JSON");
        const ModelConfig model = read_model_config(options.model);
        Options counted = options;
        if (options.plan_check) measure_tokens(model, counted);
        const Plan plan = make_plan(model, counted);
        if (world.rank() == 0) fmt::print("{}", to_text(plan));
        if (options.plan_check) check_plan(plan, counted);
    });
}
