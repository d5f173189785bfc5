#pragma once
/// The flat part of TOML that a configuration file needs: `key = value` lines with strings, numbers, booleans and
/// arrays of them. CLI11's own reader is not used: it takes a line without `=` for a flag, cuts quoted values at `#`,
/// merges a repeated key into a list and skips what it cannot read.
#include <filesystem>
#include <string>
#include <vector>

namespace lolcats {

struct ConfigEntry {
    std::string key; ///< as written
    int line;        ///< 1 is the first line of the file
    bool is_array;
    std::vector<std::string> values; ///< unquoted; one unless is_array
};

/// Anything that is not such a line, a repeated key and an unreadable file are Errors that name the file and the line.
std::vector<ConfigEntry> read_config_file(const std::filesystem::path& path);

} // namespace lolcats
