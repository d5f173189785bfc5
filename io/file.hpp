#pragma once
/// Files that are either complete or not there, directories, and content hashes.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace lolcats::io {

/// Hands `writer` the descriptor of PATH.tmp.PID, then syncs that file, renames it to PATH and syncs the directory. If
/// anything fails the temporary is removed, an older PATH is left as it was, and the Error names PATH.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(int fd)>& writer);

/// The same for content at hand.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// Writes all `size` bytes at the descriptor's position, however many calls that takes. `path` is for the error only.
void write_all(int fd, const void* data, std::size_t size, const std::filesystem::path& path);

/// PATH.tmp.PID, where a file is prepared before publish_file() gives it its name.
std::filesystem::path temporary_name(const std::filesystem::path& path);

/// Syncs `temporary`, renames it to `path` and syncs the directory.
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path);

/// Creates the directory and its parents; one that is already there is fine.
void create_directories(const std::filesystem::path& path);

/// Reads a whole (small) file.
std::string read_file(const std::filesystem::path& path);

/// "; N bytes are free there", or nothing if that cannot be found out: the end of an error about a failed write.
std::string free_space_hint(const std::filesystem::path& path);

/// XXH3, 64 bits.
std::uint64_t hash64(std::span<const std::byte> bytes);

/// 16 hexadecimal digits.
std::string to_hex(std::uint64_t value);

/// Text from a file made fit for a one-line message: control characters replaced, long text cut.
std::string printable(std::string_view text, std::size_t longest = 120);

} // namespace lolcats::io
