#pragma once
/// Where the time of a run goes: what waits for other ranks and what reads and writes files is timed, the rest is
/// compute.
#include "kernels/views.hpp"

#include <array>
#include <chrono>
#include <utility>

namespace lolcats {

class TimeSplit {
public:
    enum Part { wait, files };

    /// Calls `work` and counts its time. Device work started before is finished first, and counts as compute.
    template <class Work>
    auto measure(Part part, Work&& work) {
        Execution().fence("what comes is no compute"); // transfers go on beside
        const Scope scope{seconds_[part]};
        return work();
    }

    [[nodiscard]] double total() const { return since(start_); }
    [[nodiscard]] double seconds(Part part) const { return seconds_[part]; }

private:
    using Clock = std::chrono::steady_clock;

    static double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

    struct Scope {
        double& seconds;
        Clock::time_point start = Clock::now();
        ~Scope() { seconds += since(start); }
    };

    Clock::time_point start_ = Clock::now();
    std::array<double, 2> seconds_{};
};

} // namespace lolcats
