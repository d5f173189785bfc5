#include "src/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace lolcats {

namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

/// The number that follows `name` in a file of names and numbers; `otherwise` if there is none.
double number_after(const std::filesystem::path& path, const std::string& name, double otherwise) {
    std::ifstream file(path);
    std::string word;
    double number = 0;
    while (file >> word)
        if (word == name) return file >> number ? number : otherwise;
    return otherwise;
}

/// What a control group (version 2) lets its processes still take. Pages of files are given back where memory is short.
double left_in_group(const std::filesystem::path& group) {
    double limit = 0;
    if (!(std::ifstream(group / "memory.max") >> limit)) return unlimited; // "max", or no such file
    return limit - number_after(group / "memory.stat", "anon", 0);
}

/// The same of all groups that this process is in.
double left_in_groups(const std::filesystem::path& membership, const std::filesystem::path& root) {
    std::ifstream file(membership);
    std::string line;
    while (std::getline(file, line) && !line.starts_with("0::/")) {
    }
    if (!file) return unlimited;
    double least = left_in_group(root);
    std::filesystem::path group = root;
    for (const auto& part : std::filesystem::path(line.substr(4)))
        least = std::min(least, left_in_group(group /= part));
    return least;
}

} // namespace

double host_memory_free(const std::filesystem::path& proc, const std::filesystem::path& groups) {
    constexpr double kibibyte = 1024;
    const auto file = proc / "meminfo";
    const double free = number_after(file, "MemAvailable:", unlimited) + number_after(file, "SwapFree:", 0);
    return std::min(free * kibibyte, left_in_groups(proc / "self" / "cgroup", groups));
}

} // namespace lolcats
