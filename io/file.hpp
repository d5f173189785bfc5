#pragma once
/// Files that are either complete or not there, directories, and content hashes.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct XXH3_state_s; // of xxhash.h

namespace lolcats::io {

/// Hands `writer` the descriptor of temporary_name(PATH), then syncs that file, renames it to PATH and syncs the
/// directory. If anything fails the temporary is removed, an older PATH is left as it was, and the Error names PATH.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(int fd)>& writer);

/// The same for content at hand.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// Writes all `size` bytes at the descriptor's position, however many calls that takes. `path` is for the error only.
void write_all(int fd, const void* data, std::size_t size, const std::filesystem::path& path);

/// PATH.tmp.PID, or PATH.tmp.aATTEMPT.PID in an attempt on a work directory (io/fence.hpp): where a file is prepared
/// before publish_file() gives it its name.
std::filesystem::path temporary_name(const std::filesystem::path& path);
/// Whether this is a file name that temporary_name() makes, or of the lock (NAME-JOB-PROCESS.lock) that Open MPI puts
/// beside a file that several ranks have open.
bool is_temporary_name(const std::string& name);

/// Syncs `temporary`, a file or a directory, renames it to `path` and syncs the directory it is in. An Error, and
/// nothing renamed, where a newer attempt owns the work directory.
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path);

/// Removes a file or a directory with what is in it; that there is none is fine.
void remove_tree(const std::filesystem::path& path);

/// The same, but an end in between leaves a temporary_name(), never a directory that lacks only some of its files.
void remove_tree_at_once(const std::filesystem::path& path);

/// A file that only grows, such as a log.
class AppendFile {
public:
    /// Goes on after the first `keep` bytes of the file, fewer if it is shorter. These are copied to a new file that
    /// takes its name, so that a process that still has the old one open does not write into this one.
    AppendFile(const std::filesystem::path& path, std::int64_t keep);
    AppendFile(const AppendFile&) = delete;
    AppendFile& operator=(const AppendFile&) = delete;
    ~AppendFile();

    /// Where a newer attempt owns the work directory: an Error, and nothing written.
    void append(std::string_view text);
    void sync() const;
    [[nodiscard]] std::int64_t size() const { return size_; }

private:
    std::filesystem::path path_;
    int fd_ = -1;
    std::int64_t size_ = 0;
};

/// Creates the directory and its parents; one that is already there is fine.
void create_directories(const std::filesystem::path& path);

/// Reads a whole (small) file.
std::string read_file(const std::filesystem::path& path);

/// "; N bytes are free there", or nothing if that cannot be found out: the end of an error about a failed write.
std::string free_space_hint(const std::filesystem::path& path);

/// XXH3, 64 bits.
std::uint64_t hash64(std::span<const std::byte> bytes);

/// The same of bytes that come in pieces, however they are cut.
class Hash64 {
public:
    Hash64();
    void update(std::span<const std::byte> bytes);
    [[nodiscard]] std::uint64_t digest() const;

private:
    std::unique_ptr<XXH3_state_s, void (*)(XXH3_state_s*)> state_;
};

/// The same of all bytes of a file.
std::uint64_t hash_file(const std::filesystem::path& path);

/// 16 hexadecimal digits.
std::string to_hex(std::uint64_t value);

/// Text from a file made fit for a one-line message: control characters replaced, long text cut.
std::string printable(std::string_view text, std::size_t longest = 120);

} // namespace lolcats::io
