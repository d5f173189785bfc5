#include "lolcats/program.hpp"
#include "src/stages/generate.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, lolcats::programs::generate, lolcats::generate);
}
