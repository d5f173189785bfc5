#include "lolcats/program.hpp"
#include "src/stages/convert.hpp"

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, "lolcats_convert",
                                "stages 0 and 1 at once: attention transfer on the stream, nothing stored",
                                lolcats::convert_streaming);
}
