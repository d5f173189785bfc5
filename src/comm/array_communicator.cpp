#include "src/comm/array_communicator.hpp"

#include "kernels/views.hpp"
#include "src/comm/mpi_arrays.hpp"
#include "src/comm/nccl_arrays.hpp"

#include <spdlog/spdlog.h>

namespace lolcats {

std::unique_ptr<ArrayCommunicator> make_array_communicator(const Communicator& group, const ArrayTransport& transport,
                                                           const std::string& name, int most_blocks) {
    using Form = ArrayTransport::Form;
    const Patience patience(name, transport.timeout);
    if (transport.form == Form::mpi || group.size() == 1) return make_mpi_arrays(group, patience);
    const std::string reason = why_not_nccl(group);
    if (reason.empty()) return make_nccl_arrays(group, patience, most_blocks);
    if (transport.form == Form::nccl) fail("{}: --communication nccl cannot be: {}; use auto or mpi", name, reason);
    if (!runs_on_host && group.rank() == 0)
        spdlog::warn("{}: arrays travel through the hosts' memory: {}", name, reason);
    return make_mpi_arrays(group, patience);
}

} // namespace lolcats
