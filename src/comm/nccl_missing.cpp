#include "kernels/views.hpp"
#include "src/comm/nccl_arrays.hpp"

namespace lolcats {

std::string why_not_nccl(const Communicator&) {
    return runs_on_host ? "this is a build for the CPU" : "this build has no NCCL (LOLCATS_NCCL)";
}

std::unique_ptr<ArrayCommunicator> make_nccl_arrays(const Communicator& group, const Patience& patience, int) {
    fail("{}: {}", patience.group(), why_not_nccl(group));
}

} // namespace lolcats
