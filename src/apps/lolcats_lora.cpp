#include "lolcats/program.hpp"
#include "src/stages/lora.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, lolcats::programs::lora, lolcats::adjust_low_rank);
}
