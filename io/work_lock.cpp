#include "io/work_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "io/fence.hpp"
#include "io/file.hpp"
#include "io/json.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using std::filesystem::path;

constexpr auto beat_interval = 1s;
constexpr int attempts_kept = 20;
/// Records have one size, so that a beat is a single overwrite that needs no space.
constexpr std::size_t record_size = 512;

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

/// Tells running kernels apart: locks are certain between processes of one.
std::string boot_id() {
    const path file = "/proc/sys/kernel/random/boot_id";
    std::error_code error;
    return std::filesystem::exists(file, error) ? read_file(file).substr(0, 36) : "";
}

std::string job_id() {
    for (const char* name : {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"})
        if (const char* value = std::getenv(name); value != nullptr) return printable(value, 40);
    return "none";
}

/// How often Slurm has started this job again.
int restart_count() {
    const char* value = std::getenv("SLURM_RESTART_COUNT");
    return value != nullptr ? std::atoi(value) : 0;
}

std::string read_record(const path& file) {
    std::error_code error;
    return std::filesystem::exists(file, error) ? read_file(file) : "";
}

/// Whether the attempt is an earlier start of this very job: Slurm has given it up, even if its processes do not know.
bool is_given_up(const json& record) {
    return record.value("job", "none") == job_id() && record.value("restart", 0) < restart_count();
}

/// Whether the record and the lock say that its process is no more. A record half-written is a living one's.
bool is_over(const path& file, const std::string& record) {
    const json content = parse_json_or_discard(record);
    if (!content.is_object()) return false;
    if (content.value("state", "") != "running" || is_given_up(content)) return true;
    if (content.value("boot", "") != boot_id() || boot_id().empty()) return false;
    const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT;
    const bool is_free = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    ::close(fd);
    return is_free;
}

[[noreturn]] void refuse(const path& work, int attempt, const std::string& record) {
    const json content = parse_json_or_discard(record);
    const auto text = [&](const char* key) { return content.is_object() ? content.value(key, "?") : "?"; };
    const std::int64_t pid = content.is_object() ? content.value("pid", std::int64_t{0}) : 0;
    fail("{}: {} is at work in it (attempt {}, host {}, pid {}, job {}); wait for it, end it, or give another --work",
         work.string(), text("program"), attempt, text("host"), pid, text("job"));
}

/// Returns once the attempt is over; one that is alive is an Error.
void wait_for_end(const WorkLock::Request& request, const path& file, int attempt) {
    const std::string first = read_record(file);
    const auto start = std::chrono::steady_clock::now();
    while (!is_over(file, read_record(file))) {
        if (const auto now = read_record(file); now != first) refuse(request.work, attempt, now);
        if (std::chrono::steady_clock::now() - start > std::chrono::duration<double>(request.stale_seconds)) return;
        std::this_thread::sleep_for(50ms);
    }
}

template <class Iterator>
void remove_leftovers_in(const path& directory) {
    std::error_code error;
    if (!std::filesystem::is_directory(directory, error)) return;
    std::vector<path> found;
    for (const auto& entry : Iterator(directory))
        if (is_temporary_name(entry.path().filename().string())) found.push_back(entry.path());
    for (const path& leftover : found) remove_tree(leftover);
}

/// What else is in WORK is not ours to look into.
void remove_leftovers(const path& work) {
    remove_leftovers_in<std::filesystem::directory_iterator>(work);
    for (const char* place : {"hidden", "transfer", "lora"})
        remove_leftovers_in<std::filesystem::recursive_directory_iterator>(work / place);
}

} // namespace

WorkLock::WorkLock(const Request& request) : request_(request), directory_(request.work / "attempts") {
    io::create_directories(directory_);
    while (attempt_ == 0) {
        const auto numbers = attempts_in(directory_);
        const int last = numbers.empty() ? 0 : numbers.back();
        if (last > 0 && !request.take_over) wait_for_end(request, attempt_file(directory_, last), last);
        claim(last + 1);
    }
    set_current_attempt(directory_, attempt_);
    for (const int number : attempts_in(directory_))
        if (number <= attempt_ - attempts_kept) remove_tree(attempt_file(directory_, number));
    remove_leftovers(request.work);
    heart_ = std::jthread([this](const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (!wake_.wait_for(lock, stop, beat_interval, [] { return false; }) && !stop.stop_requested()) beat();
    });
}

WorkLock::~WorkLock() {
    heart_.request_stop();
    heart_.join();
    try {
        if (!is_superseded()) write_record("ended");
    } catch (const Error&) { // the lock is free now, which says the same
    }
    set_current_attempt({}, 0);
    ::close(fd_);
}

/// Leaves attempt_ at 0 if another process was faster.
void WorkLock::claim(int attempt) {
    const path file = attempt_file(directory_, attempt);
    // O_DSYNC: on network file systems others would see a beat only when it is written back, half a minute later.
    fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_DSYNC | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno == EEXIST) return;
    if (fd_ < 0) {
        fail("{}: cannot create: {}{}; check --work and its permissions", file.string(), std::strerror(errno),
             free_space_hint(file));
    }
    // Where the file system has no locks the beat alone counts.
    static_cast<void>(::flock(fd_, LOCK_EX | LOCK_NB));
    attempt_ = attempt;
    try {
        write_record("running");
    } catch (...) {
        ::unlink(file.c_str());
        throw;
    }
}

void WorkLock::write_record(const char* state) {
    const json record = {{"attempt", attempt_},
                         {"state", state},
                         {"program", request_.program},
                         {"host", host_name()},
                         {"boot", boot_id()},
                         {"pid", ::getpid()},
                         {"job", job_id()},
                         {"restart", restart_count()},
                         {"beat", beats_}};
    std::string text = record.dump();
    text.resize(record_size - 1, ' ');
    text += '\n';
    if (::pwrite(fd_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
        const path file = attempt_file(directory_, attempt_);
        fail("{}: cannot write: {}{}; free space or give another --work", file.string(), std::strerror(errno),
             free_space_hint(file));
    }
}

/// A beat that cannot be written is left out, as is one where the disk does not tell whose turn it is: the next one may
/// be.
void WorkLock::beat() {
    try {
        if (is_superseded()) return;
        ++beats_;
        write_record("running");
    } catch (const Error&) {
    }
}

} // namespace lolcats::io
