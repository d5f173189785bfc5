/// Writes DIRECTORY/PROGRAM.1 of every program and DIRECTORY/lolcats.bash.  usage: write_documents DIRECTORY DATE
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/documents.hpp"

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>

namespace {

void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream file(path);
    file << text;
    file.close();
    if (!file) lolcats::fail("{}: cannot be written", path.string());
}

} // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 3) lolcats::fail("usage: write_documents DIRECTORY DATE");
        const std::filesystem::path directory = argv[1];
        std::filesystem::create_directories(directory);
        for (const auto& program : lolcats::programs::all)
            write(directory / (std::string(program.name) + ".1"),
                  lolcats::manual_page(program, lolcats::version_string(), argv[2]));
        write(directory / "lolcats.bash", lolcats::bash_completion());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "write_documents: error: %s\n", error.what());
        return 1;
    }
    return 0;
}
