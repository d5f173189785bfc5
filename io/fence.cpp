#include "io/fence.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

/// Set before any other thread of the process asks.
std::filesystem::path attempts;
std::atomic<int> own{0};

/// Opens the directory first: NFS then asks for its attributes, and forgets what it remembered of names in it, also
/// that there are none, where these have changed. Opening the file by its path would trust that memory for up to a
/// minute.
bool is_there(const std::filesystem::path& path) {
    const int directory = ::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return errno != ENOENT;
    const int fd = ::openat(directory, path.filename().c_str(), O_RDONLY | O_CLOEXEC);
    const bool found = fd >= 0 || errno != ENOENT;
    if (fd >= 0) ::close(fd);
    ::close(directory);
    return found;
}

} // namespace

std::filesystem::path attempt_file(const std::filesystem::path& directory, int attempt) {
    return directory / fmt::format("{:06}.json", attempt);
}

void set_current_attempt(const std::filesystem::path& directory, int attempt) {
    attempts = directory;
    own = attempt;
}

int current_attempt() {
    return own;
}

bool is_superseded() {
    if (own == 0) return false;
    // Old files are removed in ascending order, so a missing own one means that many have come since.
    return is_there(attempt_file(attempts, own + 1)) || !is_there(attempt_file(attempts, own));
}

void require_current_attempt() {
    if (is_superseded())
        fail("{}: attempt {} was given up for dead, and a newer one has taken over this work directory; this one ends "
             "without changing a file: leave the work to the newer one",
             attempts.string(), current_attempt());
}

} // namespace lolcats::io
