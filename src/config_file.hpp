#pragma once
/// A configuration file: TOML, flat. CLI11's own reader is not used: it takes a line without `=` for a flag, cuts
/// quoted values at `#`, merges a repeated key into a list and skips what it cannot read.
#include <filesystem>
#include <string>
#include <vector>

namespace lolcats {

struct ConfigEntry {
    std::string key;
    int line; ///< 1 is the first line of the file
    bool is_array;
    std::vector<std::string> values; ///< as on a command line; one unless is_array
};

/// Entries in the order of the file. What is not TOML, a section, a date and an unreadable file are Errors that name
/// the file and the line.
std::vector<ConfigEntry> read_config_file(const std::filesystem::path& path);

} // namespace lolcats
