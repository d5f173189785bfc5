#pragma once
/// One flag in the memory that the ranks of a node share: the first of them to fail speaks, the others keep quiet.
#include "src/comm/communicator.hpp"

namespace lolcats {

class ErrorLatch {
public:
    /// Collective over `node`, whose ranks must share memory (Communicator::split_by_node).
    explicit ErrorLatch(const Communicator& node);
    ErrorLatch(const ErrorLatch&) = delete;
    ErrorLatch& operator=(const ErrorLatch&) = delete;
    /// Collective.
    ~ErrorLatch();

    /// True for exactly one caller on the node, from any rank and thread.
    [[nodiscard]] bool claim() noexcept;

private:
    MPI_Win window_ = MPI_WIN_NULL;
    int* flag_ = nullptr;
};

} // namespace lolcats
