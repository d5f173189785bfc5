#include "lolcats/program.hpp"
#include "src/stages/transfer.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, "lolcats_block", "stage 1: attention transfer, block by block",
                                lolcats::transfer_attention);
}
