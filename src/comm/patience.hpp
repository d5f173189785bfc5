#pragma once
/// How long a rank waits for others before it takes one of them for dead.
#include "lolcats/error.hpp"

#include <chrono>
#include <string>
#include <thread>
#include <utility>

namespace lolcats {

class Patience {
public:
    using Clock = std::chrono::steady_clock;

    /// `group` names the ranks that wait for each other, such as "replicas of stage 3".
    Patience(std::string group, std::chrono::duration<double> limit) : group_(std::move(group)), limit_(limit) {}

    [[nodiscard]] const std::string& group() const { return group_; }
    [[nodiscard]] std::chrono::duration<double> limit() const { return limit_; }
    [[nodiscard]] bool is_over(Clock::time_point start) const { return Clock::now() - start > limit_; }
    /// The message of the Error of one that waited in vain for `what`.
    [[nodiscard]] std::string complaint(const char* what) const {
        return fmt::format("{}: {} was not over after {:.10g} s: one of these ranks is dead or hangs; look which log "
                           "stands still and start the run again, or raise --communication-timeout if a rank only "
                           "computes for so long",
                           group_, what, limit_.count());
    }

    /// Polls until `is_done()`; Error after the limit.
    template <class Done>
    void wait(const char* what, Done&& is_done) const {
        const auto start = Clock::now();
        while (!is_done()) {
            if (is_over(start)) throw Error(complaint(what));
            std::this_thread::yield();
        }
    }

private:
    std::string group_;
    std::chrono::duration<double> limit_;
};

} // namespace lolcats
