#include "lolcats/program.hpp"
#include "src/stages/lora.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, "lolcats_lora", "stage 2: low-rank adjusting of the linearised model",
                                lolcats::adjust_low_rank);
}
