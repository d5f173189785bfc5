#include "io/fence.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

/// Set before any other thread of the process asks.
std::filesystem::path attempts;
std::atomic<int> own{0};

constexpr auto between_looks = std::chrono::milliseconds(100);
constexpr int most_looks = 5;

/// 0: the file is there; ENOENT: it is not; any other number is why that cannot be told.
/// Opens the directory first: NFS then asks for its attributes, and forgets what it remembered of names in it, also
/// that there are none, where these have changed. Opening the file by its path would trust that memory for up to a
/// minute.
int look_for(const std::filesystem::path& path) {
    const int directory = ::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return errno;
    const int fd = ::openat(directory, path.filename().c_str(), O_RDONLY | O_CLOEXEC);
    const int error = fd < 0 ? errno : 0;
    if (fd >= 0) ::close(fd);
    ::close(directory);
    return error;
}

[[noreturn]] void fail_to_tell(const std::filesystem::path& path, const std::string& reason) {
    fail("{}: cannot tell whether another attempt has begun: {}; look at the disk, then run the same command again",
         path.string(), reason);
}

/// A disk that does not tell is asked again: a file server that starts anew must not end a run of weeks.
bool is_there(const std::filesystem::path& path) {
    int error = look_for(path);
    for (int i = 1; i < most_looks && error != 0 && error != ENOENT; ++i) {
        std::this_thread::sleep_for(between_looks);
        error = look_for(path);
    }
    if (error != 0 && error != ENOENT) fail_to_tell(path, std::strerror(error));
    return error == 0;
}

enum class Standing { current, superseded, deleted };

Standing standing() {
    if (own == 0) return Standing::current;
    if (is_there(attempt_file(attempts, own + 1))) return Standing::superseded;
    if (is_there(attempt_file(attempts, own))) return Standing::current;
    // Old files are removed in ascending order, so a missing own one means that many have come since, or that somebody
    // removed them all.
    const auto numbers = attempts_in(attempts);
    return !numbers.empty() && numbers.back() > own ? Standing::superseded : Standing::deleted;
}

} // namespace

std::vector<int> attempts_in(const std::filesystem::path& directory) {
    std::vector<int> numbers;
    std::error_code error;
    for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
        const std::string name = at->path().stem().string();
        int number = 0;
        const auto [stop, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
        if (problem == std::errc() && stop == name.data() + name.size() && number > 0) numbers.push_back(number);
    }
    if (error && error != std::errc::no_such_file_or_directory) fail_to_tell(directory, error.message());
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

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
    return standing() == Standing::superseded;
}

void require_current_attempt() {
    const Standing now = standing();
    if (now == Standing::superseded)
        fail("{}: attempt {} was given up for dead, and a newer one has taken over this work directory; this one ends "
             "without changing a file: leave the work to the newer one",
             attempts.string(), current_attempt());
    if (now == Standing::deleted)
        fail("{}: is gone, though no newer attempt has begun: {} was deleted, by which runs know of each other; this "
             "one ends without changing a file: leave the directory alone, and run the same command again",
             attempt_file(attempts, own).string(), attempts.string());
}

} // namespace lolcats::io
