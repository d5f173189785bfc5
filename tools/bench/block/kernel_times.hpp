#pragma once
/// Where a program's time goes, by Kokkos' own hooks: no tool has to be loaded.
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lolcats::bench {

/// Time by kernel, while an object of this class lives. Around every kernel and region the device is waited for, so
/// times add up to that of the whole; what lies between them is the host's ("host"). A kernel or region inside another
/// counts as part of the outermost. One at a time.
class KernelTimes {
public:
    struct Entry {
        double seconds = 0;
        std::int64_t calls = 0;
    };

    KernelTimes();
    ~KernelTimes();
    KernelTimes(const KernelTimes&) = delete;
    KernelTimes& operator=(const KernelTimes&) = delete;

    /// Time up to now, by name.
    std::map<std::string, Entry> read();

    void begin(const char* name);
    void end();

private:
    using Clock = std::chrono::steady_clock;
    void charge();

    std::map<std::string, Entry> times_;
    std::vector<std::string> open_;
    Clock::time_point mark_;
};

} // namespace lolcats::bench
