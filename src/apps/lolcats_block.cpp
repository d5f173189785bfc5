#include "lolcats/program.hpp"
#include "src/stages/transfer.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, lolcats::programs::block, lolcats::transfer_attention);
}
