#include "io/mapped_memory.hpp"

#include <csetjmp>
#include <csignal>

namespace lolcats::io {
namespace {

/// Where this thread goes on if a page cannot be had; none outside of read_mapped().
thread_local sigjmp_buf* way_out = nullptr;

struct sigaction previous {};

/// The kernel raises SIGBUS in the thread that touches the page. One that is nobody's here is left to who was there
/// before: the instruction is repeated when this returns.
void on_bus_error(int signal) {
    if (way_out != nullptr) siglongjmp(*way_out, 1);
    ::sigaction(signal, &previous, nullptr);
}

bool install_handler() {
    struct sigaction action {};
    action.sa_handler = on_bus_error;
    action.sa_flags = SA_NODEFER; // else it would stay blocked behind the jump
    ::sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &previous) == 0;
}

/// Puts the thread's old way out back, whatever happens.
class WayOut {
public:
    explicit WayOut(sigjmp_buf& mine) : old_(way_out) { way_out = &mine; }
    WayOut(const WayOut&) = delete;
    WayOut& operator=(const WayOut&) = delete;
    ~WayOut() { way_out = old_; }

private:
    sigjmp_buf* old_;
};

} // namespace

bool read_mapped(const std::function<void()>& action) {
    static const bool installed = install_handler();
    static_cast<void>(installed);
    sigjmp_buf here;
    const WayOut scope(here);
    if (sigsetjmp(here, 0) != 0) return false;
    action();
    return true;
}

} // namespace lolcats::io
