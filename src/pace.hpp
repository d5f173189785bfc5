#pragma once
/// How fast long work goes, and how long it still takes at that pace.
#include "src/console.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>

namespace lolcats {

/// "42 s", "3 min 20 s", "5 h 07 min".
inline std::string duration_text(double seconds) {
    const auto whole = static_cast<long>(std::lround(seconds));
    if (whole < 60) return fmt::format("{} s", whole);
    if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
    return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

/// Speed and time left of long work, shown on a status line as long as the object lives.
class Pace {
public:
    using Clock = std::chrono::steady_clock;

    /// The work named `what` ("hidden states of") advances in `units` (steps, sequences) of `tokens` each, from `done`
    /// to `total`. If not `speaks`, the object only counts.
    Pace(std::string what, std::string units, double tokens, std::int64_t done, std::int64_t total, bool speaks)
        : what_(std::move(what)), units_(std::move(units)), tokens_(tokens), first_(done), done_(done), total_(total),
          speaks_(speaks) {}
    Pace(const Pace&) = delete;
    Pace& operator=(const Pace&) = delete;
    ~Pace() {
        if (speaks_) show_status("");
    }

    void advance(std::int64_t units) {
        done_ += units;
        if (speaks_) show_status(text());
    }

    /// "WHAT 64 of 200 sequences, 1830 tokens/s, 3 min 20 s left"; without the pace before anything was done.
    [[nodiscard]] std::string text() const {
        const std::string head = fmt::format("{} {} of {} {}", what_, done_, total_, units_);
        if (done_ == first_) return head;
        return fmt::format("{}, {:.0f} tokens/s, {} left", head, rate() * tokens_, left());
    }
    [[nodiscard]] std::string left() const { return duration_text(static_cast<double>(total_ - done_) / rate()); }
    [[nodiscard]] std::int64_t done() const { return done_; }
    [[nodiscard]] bool is_done() const { return done_ == total_; }

private:
    /// Units a second.
    [[nodiscard]] double rate() const {
        return static_cast<double>(done_ - first_) / std::chrono::duration<double>(Clock::now() - start_).count();
    }

    std::string what_;
    std::string units_;
    double tokens_;
    std::int64_t first_;
    std::int64_t done_;
    std::int64_t total_;
    bool speaks_;
    Clock::time_point start_ = Clock::now();
};

} // namespace lolcats
