#include "lolcats/program.hpp"
#include "src/stages/convert.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, lolcats::programs::convert, lolcats::convert_streaming);
}
