#include "io/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <regex>
#include <vector>

#include "io/fence.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

/// A descriptor that is closed when the scope ends, whatever happens.
class Descriptor {
public:
    Descriptor(const std::filesystem::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
        if (fd_ < 0) {
            fail("{}: cannot open: {}; check the path and its permissions", path.string(), std::strerror(errno));
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const { return fd_; }
    /// Network file systems report failed writes only here.
    void close(const std::filesystem::path& path) {
        if (::close(std::exchange(fd_, -1)) != 0)
            fail("{}: cannot close: {}; look at the disk, then run the same command again", path.string(),
                 std::strerror(errno));
    }

private:
    int fd_;
};

std::filesystem::path directory_of(const std::filesystem::path& path) {
    return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// Hands over all bytes of a file, piece by piece.
template <class Visit>
void for_each_piece(const std::filesystem::path& path, const Visit& visit) {
    const Descriptor file(path, O_RDONLY);
    std::vector<char> buffer(1 << 20);
    while (true) {
        const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0)
            fail("{}: cannot read: {}; look at the disk, then run the same command again", path.string(),
                 std::strerror(errno));
        if (count == 0) return;
        visit(std::span<const char>(buffer).first(static_cast<std::size_t>(count)));
    }
}

void sync_file(const std::filesystem::path& path) {
    Descriptor file(path, O_RDONLY);
    if (::fsync(file.get()) != 0) {
        fail("{}: cannot bring to disk: {}{}; free space, look at the disk, or write elsewhere", path.string(),
             std::strerror(errno), free_space_hint(path));
    }
    file.close(path);
}

void sync_directory(const std::filesystem::path& directory) {
    Descriptor file(directory, O_RDONLY | O_DIRECTORY);
    // Some file systems cannot sync a directory and say so by EINVAL; there is nothing more to do on them.
    if (::fsync(file.get()) != 0 && errno != EINVAL) {
        fail("{}: cannot bring the directory to disk: {}; look at the disk, then run the same command again",
             directory.string(), std::strerror(errno));
    }
}

} // namespace

std::filesystem::path temporary_name(const std::filesystem::path& path) {
    const std::string attempt = current_attempt() > 0 ? fmt::format("a{}.", current_attempt()) : "";
    return fmt::format("{}.tmp.{}{}", path.string(), attempt, ::getpid());
}

bool is_temporary_name(const std::string& name) {
    static const std::regex pattern(R"(.+\.tmp\.(a\d+\.)?\d+|.+\.h5.*-\d+-\d+\.lock)");
    return std::regex_match(name, pattern);
}

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path) {
    std::filesystem::is_directory(temporary) ? sync_directory(temporary) : sync_file(temporary);
    require_current_attempt();
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
        fail("{}: cannot rename {} to it: {}; look at the disk and its permissions, then run the same command again",
             path.string(), temporary.string(), std::strerror(errno));
    }
    sync_directory(directory_of(path));
}

void write_file_atomically(const std::filesystem::path& path, const std::function<void(int fd)>& writer) {
    const auto temporary = temporary_name(path);
    Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    try {
        writer(file.get());
        file.close(path);
        publish_file(temporary, path);
    } catch (...) {
        ::unlink(temporary.c_str());
        throw;
    }
}

void remove_tree(const std::filesystem::path& path) {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) fail("{}: cannot be removed: {}; check its permissions", path.string(), error.message());
}

void remove_tree_at_once(const std::filesystem::path& path) {
    const auto aside = temporary_name(path);
    if (::rename(path.c_str(), aside.c_str()) == 0) return remove_tree(aside);
    if (errno != ENOENT) fail("{}: cannot be removed: {}; check its permissions", path.string(), std::strerror(errno));
}

AppendFile::AppendFile(const std::filesystem::path& path, std::int64_t keep) : path_(path) {
    std::error_code missing;
    std::string kept;
    if (keep > 0 && std::filesystem::exists(path, missing)) kept = read_file(path);
    kept.resize(std::min(kept.size(), static_cast<std::size_t>(keep)));
    write_file_atomically(path, kept);
    size_ = static_cast<std::int64_t>(kept.size());
    fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd_ < 0) fail("{}: cannot be written: {}; check its permissions", path.string(), std::strerror(errno));
}

AppendFile::~AppendFile() {
    ::close(fd_);
}

void AppendFile::append(std::string_view text) {
    require_current_attempt();
    write_all(fd_, text.data(), text.size(), path_);
    size_ += static_cast<std::int64_t>(text.size());
}

void AppendFile::sync() const {
    if (::fsync(fd_) != 0) {
        fail("{}: cannot bring to disk: {}{}; free space, look at the disk, or write elsewhere", path_.string(),
             std::strerror(errno), free_space_hint(path_));
    }
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
    write_file_atomically(path, [&](int fd) { write_all(fd, content.data(), content.size(), path); });
}

void write_all(int fd, const void* data, std::size_t size, const std::filesystem::path& path) {
    const auto* bytes = static_cast<const char*>(data);
    while (size > 0) {
        const ssize_t written = ::write(fd, bytes, std::min<std::size_t>(size, 1U << 30));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            const char* reason = written == 0 ? "nothing was written" : std::strerror(errno);
            fail("{}: cannot write: {}{}; free space, look at the disk, or write elsewhere", path.string(), reason,
                 free_space_hint(path));
        }
        bytes += written;
        size -= static_cast<std::size_t>(written);
    }
}

void create_directories(const std::filesystem::path& path) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) {
        fail("{}: cannot create the directory: {}; check the path and its permissions", path.string(), error.message());
    }
    if (!std::filesystem::is_directory(path, error))
        fail("{}: is not a directory; remove it or give another path", path.string());
}

std::string read_file(const std::filesystem::path& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) fail("{}: is a directory, not a file", path.string());
    std::string text;
    for_each_piece(path, [&](std::span<const char> piece) { text.append(piece.data(), piece.size()); });
    return text;
}

std::string free_space_hint(const std::filesystem::path& path) {
    struct statvfs info {};
    const auto directory = directory_of(path);
    if (::statvfs(directory.c_str(), &info) != 0) return {};
    return fmt::format("; {} bytes are free in {}", std::uint64_t{info.f_bavail} * info.f_frsize, directory.string());
}

std::uint64_t hash64(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

Hash64::Hash64() : state_(XXH3_createState(), [](XXH3_state_s* state) { XXH3_freeState(state); }) {
    if (!state_) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
}

void Hash64::update(std::span<const std::byte> bytes) {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
}

std::uint64_t Hash64::digest() const {
    return XXH3_64bits_digest(state_.get());
}

std::uint64_t hash_file(const std::filesystem::path& path) {
    Hash64 hash;
    for_each_piece(path, [&](std::span<const char> piece) { hash.update(std::as_bytes(piece)); });
    return hash.digest();
}

std::string to_hex(std::uint64_t value) {
    return fmt::format("{:016x}", value);
}

std::string printable(std::string_view text, std::size_t longest) {
    std::string result(text.substr(0, longest));
    for (char& c : result) {
        const auto code = static_cast<unsigned char>(c);
        if (code < 0x20 || code == 0x7f) c = '?';
    }
    if (text.size() > longest) result += "...";
    return result;
}

} // namespace lolcats::io
