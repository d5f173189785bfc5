#pragma once
/// At most one attempt at a time works in a work directory.
///
/// Each attempt makes WORK/attempts/NNNNNN.json, exclusively, with a number one above the last: a line of JSON with
/// its program, host, process, job and a beat that counts on every second. An attempt is over when its file says so,
/// when the lock on it (flock) is free on the same machine, when Slurm has started the same job again, or when its beat
/// has stood still for the time given: that works where locks do not reach other machines, and needs no agreement of
/// clocks.
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

namespace lolcats::io {

class WorkLock {
public:
    struct Request {
        std::filesystem::path work; ///< must exist
        std::string program;
        double stale_seconds = 30; ///< a beat that stands still for so long is a dead attempt's
        bool take_over = false;    ///< do not ask whether the last attempt is over
    };

    /// Waits at most `stale_seconds`. An attempt that is alive is an Error that says where it runs.
    /// Removes what older attempts left half-written in WORK, its hidden/, transfer/ and lora/.
    explicit WorkLock(const Request& request);
    WorkLock(const WorkLock&) = delete;
    WorkLock& operator=(const WorkLock&) = delete;
    /// Says in the attempt's file that it is over.
    ~WorkLock();

    [[nodiscard]] int attempt() const { return attempt_; }
    [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }

private:
    void claim(int attempt);
    void write_record(const char* state);
    void beat();

    Request request_;
    std::filesystem::path directory_;
    int attempt_ = 0;
    int fd_ = -1;
    std::int64_t beats_ = 0;
    std::mutex mutex_;
    std::condition_variable_any wake_;
    std::jthread heart_;
};

} // namespace lolcats::io
