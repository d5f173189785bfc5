#include "src/comm/error_latch.hpp"

#include <atomic>

namespace lolcats {

static_assert(std::atomic_ref<int>::is_always_lock_free, "a lock would not be shared between processes");

ErrorLatch::ErrorLatch(const Communicator& node) {
    const MPI_Aint bytes = node.rank() == 0 ? sizeof(int) : 0;
    check_mpi(MPI_Win_allocate_shared(bytes, sizeof(int), MPI_INFO_NULL, node.get(), &flag_, &window_),
              "MPI_Win_allocate_shared");
    MPI_Aint size = 0;
    int unit = 0;
    check_mpi(MPI_Win_shared_query(window_, 0, &size, &unit, &flag_), "MPI_Win_shared_query");
    if (node.rank() == 0) std::atomic_ref<int>(*flag_).store(0);
    node.barrier();
}

ErrorLatch::~ErrorLatch() {
    MPI_Win_free(&window_);
}

bool ErrorLatch::claim() noexcept {
    return std::atomic_ref<int>(*flag_).exchange(1) == 0;
}

} // namespace lolcats
