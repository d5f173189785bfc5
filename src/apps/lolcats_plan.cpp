/// Prints what a conversion will cost before anything is run.
#include "lolcats/error.hpp"
#include "lolcats/plan.hpp"
#include "lolcats/program.hpp"
#include "src/comm/communicator.hpp"

#include <fmt/format.h>

int main(int argc, char** argv) {
    using namespace lolcats;
    const auto* purpose = "Works out blocks, disk, memory, arithmetic and hours of a conversion.";
    const auto stage = [](const Options& options, const Communicator& world) {
        if (options.model.empty()) fail("model is not set: give --model DIRECTORY or --model CONFIG.JSON");
        const Plan plan = make_plan(read_model_config(options.model), options);
        if (world.rank() == 0) fmt::print("{}", to_text(plan));
    };
    return run_program(argc, argv, "lolcats_plan", purpose, stage, Arrays::unused);
}
