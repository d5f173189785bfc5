#include "kernels/accelerator.hpp"

#include <fstream>

namespace lolcats {

void prepare_accelerator() {}

int accelerator_count() {
    return 1;
}

const char* missing_accelerator() {
    return "";
}

std::string accelerator_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (const auto colon = line.find(": "); line.starts_with("model name") && colon != std::string::npos)
            return line.substr(colon + 2);
    return "a CPU";
}

std::string accelerator_identity() {
    return "";
}

double accelerator_memory_in_use() {
    return 0;
}

double accelerator_memory_free() {
    return 0;
}

} // namespace lolcats
