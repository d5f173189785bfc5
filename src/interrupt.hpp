#pragma once
/// Ends a run before its work is done, so that it can go on later: on SIGTERM or SIGUSR1 (a scheduler's warning), or
/// when the time left of --wall-time is too short for another step. The program's status is then 85, by which a
/// scheduler starts it again.
#include "lolcats/options.hpp"
#include "src/comm/stop_agreement.hpp"

#include <chrono>

namespace lolcats {

inline constexpr int requeue_status = 85;

class Interrupt {
public:
    /// From here on the two signals do not end the process. `steps_under_way`: steps that are still finished after a
    /// rank has asked to stop. Collective.
    Interrupt(const Options& options, const Communicator& world, int steps_under_way = 1);
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;
    ~Interrupt();

    /// Whether this rank should stop. Call it between steps: the longest time between two calls tells what the next
    /// step needs. Cheap, waits for nobody; ranks that work in step reduce what it says.
    bool is_wanted();
    /// The time until the next call of is_wanted() does not count as a step.
    void leave_out_interval();
    /// Seconds that writing a checkpoint took.
    void checkpoint_took(double seconds);

    /// At the end of this rank's work; `stopped`: before it is done. Waits for the other ranks; true, and the program's
    /// status is 85, if any of them stopped. Collective.
    bool finish(bool stopped);

private:
    using Clock = std::chrono::steady_clock;
    [[nodiscard]] bool is_time_up() const;

    StopAgreement agreement_;
    double wall_seconds_;
    int steps_under_way_;
    double longest_step_ = 0;
    double longest_checkpoint_ = 0;
    Clock::time_point last_call_ = Clock::now();
    bool counts_interval_ = false;
    bool announced_ = false;
};

/// 0, or 85 once finish() has returned true.
int exit_status();

} // namespace lolcats
