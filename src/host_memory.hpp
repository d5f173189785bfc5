#pragma once
/// What is left of the host's memory.
#include <filesystem>

namespace lolcats {

/// Bytes that this process can still take: what the host (swap included) has left, and what every control group
/// (version 2) of the process lets it take, whichever is least; infinite where nothing says. `proc` and `groups` are
/// where Linux shows both.
double host_memory_free(const std::filesystem::path& proc = "/proc",
                        const std::filesystem::path& groups = "/sys/fs/cgroup");

} // namespace lolcats
