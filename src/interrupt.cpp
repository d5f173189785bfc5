#include "src/interrupt.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <spdlog/spdlog.h>

namespace lolcats {
namespace {

// Signals and the exit status are the process's, so these are too.
std::atomic<int> signal_seen{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may not wait for a lock");
int status = 0;
const auto program_start = std::chrono::steady_clock::now();

void note_signal(int number) {
    signal_seen = number;
}

void handle(int number, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, nullptr);
}

} // namespace

Interrupt::Interrupt(const Options& options, const Communicator& world, int steps_under_way)
    : agreement_(world), wall_seconds_(lolcats::wall_seconds(options)), steps_under_way_(steps_under_way) {
    for (const int number : {SIGTERM, SIGUSR1}) handle(number, note_signal);
}

Interrupt::~Interrupt() {
    for (const int number : {SIGTERM, SIGUSR1}) handle(number, SIG_DFL);
}

bool Interrupt::is_time_up() const {
    const double elapsed = std::chrono::duration<double>(Clock::now() - program_start).count();
    // A step may take longer than those before it, and the end of the program takes a moment.
    return elapsed + 1.25 * steps_under_way_ * longest_step_ + 2 * longest_checkpoint_ + 1 > wall_seconds_;
}

bool Interrupt::is_wanted() {
    const auto now = Clock::now();
    if (counts_interval_)
        longest_step_ = std::max(longest_step_, std::chrono::duration<double>(now - last_call_).count());
    last_call_ = now;
    counts_interval_ = true;
    const int number = signal_seen;
    const bool wanted = number != 0 || is_time_up();
    if (wanted && !std::exchange(announced_, true))
        spdlog::info("{}: stopping after this step", number != 0 ? fmt::format("signal {}", number)
                                                                 : fmt::format("{} s are nearly over", wall_seconds_));
    return agreement_.poll(wanted) || wanted;
}

void Interrupt::leave_out_interval() {
    counts_interval_ = false;
}

void Interrupt::checkpoint_took(double seconds) {
    longest_checkpoint_ = std::max(longest_checkpoint_, seconds);
}

bool Interrupt::finish(bool stopped) {
    const bool stops = agreement_.finish(stopped);
    if (stops) status = requeue_status;
    return stops;
}

int exit_status() {
    return status;
}

} // namespace lolcats
