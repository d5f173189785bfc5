#include "lolcats/program.hpp"
#include "src/stages/hidden.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, "lolcats_hidden", "stage 0: stores the hidden states that enter each block",
                                lolcats::store_hidden_states);
}
