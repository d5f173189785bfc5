#include "src/attempt.hpp"

#include "io/fence.hpp"
#include "io/file.hpp"

#include <filesystem>

namespace lolcats {

Attempt::Attempt(const Options& options, const std::string& program, const Communicator& world) {
    const std::filesystem::path work = options.work;
    int attempt = 0;
    if (world.rank() == 0) {
        io::create_directories(work);
        lock_.emplace(io::WorkLock::Request{work, program, options.stale_after, options.take_over});
        attempt = lock_->attempt();
    }
    world.broadcast(&attempt, sizeof attempt, 0);
    if (world.rank() != 0) io::set_current_attempt(work / "attempts", attempt);
}

Attempt::~Attempt() {
    if (!lock_) io::set_current_attempt({}, 0);
}

} // namespace lolcats
