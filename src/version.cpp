#include "lolcats/program.hpp"

namespace lolcats {

std::string version_string() {
    return LOLCATS_VERSION;
}

std::string git_hash() {
    const std::string hash = LOLCATS_GIT_HASH;
    return hash.empty() ? "unknown" : hash;
}

} // namespace lolcats
