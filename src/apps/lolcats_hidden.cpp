#include "lolcats/program.hpp"
#include "src/stages/hidden.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, lolcats::programs::hidden, lolcats::store_hidden_states);
}
