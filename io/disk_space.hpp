#pragma once
/// Space on a file system, asked for before a file is written. Both results are the middle of an error; `of` says in it
/// what the bytes are of.
#include <cstdint>
#include <filesystem>
#include <string>

namespace lolcats::io {

/// Says so if the file system has no room for a new file of `bytes`; empty if it has, or cannot tell.
std::string find_shortage(const std::filesystem::path& file, std::uintmax_t bytes, const char* of);

/// Asks the file system for all blocks of a file that has its size already. The error, if it has too few; empty also
/// where it cannot reserve: there a full disk shows when the file is written.
std::string reserve(const std::filesystem::path& file, const char* of);

} // namespace lolcats::io
