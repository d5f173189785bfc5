#include "lolcats/program.hpp"
#include "src/stages/evaluate.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, "lolcats_eval", "evaluates the teacher or a linearised model",
                                lolcats::evaluate_model);
}
