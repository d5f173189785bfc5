#pragma once
/// One attempt at a stage, the only one in its work directory.
#include "io/work_lock.hpp"
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

#include <optional>
#include <string>

namespace lolcats {

class Attempt {
public:
    /// Creates the work directory and locks it; Error if another attempt is alive. From here on no rank publishes a
    /// file once a newer attempt has taken over. Collective.
    Attempt(const Options& options, const std::string& program, const Communicator& world);
    Attempt(const Attempt&) = delete;
    Attempt& operator=(const Attempt&) = delete;
    ~Attempt();

private:
    std::optional<io::WorkLock> lock_; ///< on rank 0
};

} // namespace lolcats
