#include "lolcats/program.hpp"
#include "src/stages/evaluate.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, lolcats::programs::eval, lolcats::evaluate_model);
}
