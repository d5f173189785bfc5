#pragma once
/// Sums, messages and broadcasts of arrays that lie in the memory of the default execution space: in the build for GPUs
/// in that of this rank's GPU. They travel by NCCL where it can be, else by MPI; what the ranks say to each other
/// beside (shapes, losses, words to stop) goes by MPI alone.
#include "src/comm/communicator.hpp"
#include "src/comm/patience.hpp"

#include <memory>
#include <string>

namespace lolcats {

/// What carries arrays, and how long a rank waits.
struct ArrayTransport {
    enum class Form {
        automatic, ///< NCCL where every rank of the group has a GPU of its own, else MPI
        mpi,
        nccl
    };
    Form form = Form::automatic;
    std::chrono::duration<double> timeout = std::chrono::minutes(30); ///< --communication-timeout
};

/// An operation under way. Its array is to be left alone until wait() has returned. One that dies before leaves the
/// array undefined: that is for the unwinding of an error only.
class Transfer {
public:
    virtual ~Transfer() = default;
    /// Returns when the operation is over: what is submitted to the default execution space from then on sees its
    /// result. Does nothing the second time. Error if a rank of the group has died, or timeout.
    virtual void wait() = 0;
};

/// A group's operations begin after all work submitted to the default execution space before, are carried out in the
/// order in which they are called, and return at once. Every rank of the group calls the collective ones in the same
/// order; the messages from one rank to another arrive in the order in which they were sent.
class ArrayCommunicator {
public:
    virtual ~ArrayCommunicator() = default;

    /// The same ranks, for what travels beside the arrays. They wait for each other as long as for arrays.
    [[nodiscard]] const Communicator& control() const { return control_; }
    [[nodiscard]] int rank() const { return control_.rank(); }
    [[nodiscard]] int size() const { return control_.size(); }
    [[nodiscard]] virtual const char* name() const = 0; ///< "MPI" or "NCCL"

    /// In place, element by element, over all ranks. Collective; `count` must agree.
    [[nodiscard]] virtual std::unique_ptr<Transfer> sum(float* values, std::size_t count) = 0;
    [[nodiscard]] virtual std::unique_ptr<Transfer> sum(double* values, std::size_t count) = 0;
    /// `count` bytes of root to all ranks. Collective; `count` must agree.
    [[nodiscard]] virtual std::unique_ptr<Transfer> broadcast(void* bytes, std::size_t count, int root) = 0;
    /// Both sides name the same count of bytes. A send is over once the receiver has taken the message.
    [[nodiscard]] virtual std::unique_ptr<Transfer> send(const void* bytes, std::size_t count, int destination) = 0;
    [[nodiscard]] virtual std::unique_ptr<Transfer> receive(void* bytes, std::size_t count, int source) = 0;

protected:
    ArrayCommunicator(const Communicator& group, Patience patience)
        : control_(group.duplicate()), patience_(std::move(patience)) {
        control_.limit_waiting(patience_);
    }

    Communicator control_;
    Patience patience_;
};

/// How much of a GPU the operations of a group may take, in thread blocks; there are at least 108 multiprocessors. All
/// that can be in flight at once (one group and four links) must fit there together, since a transfer occupies its
/// blocks until the other rank has come.
inline constexpr int blocks_of_group = 32;
inline constexpr int blocks_of_link = 8;

/// `name` says in messages who the ranks are. Error if NCCL is asked for and cannot be. Collective over `group`.
std::unique_ptr<ArrayCommunicator> make_array_communicator(const Communicator& group, const ArrayTransport& transport,
                                                           const std::string& name, int most_blocks = blocks_of_group);

/// Why the ranks of this group cannot use NCCL; empty if they can. The same on all of them. Collective.
std::string why_not_nccl(const Communicator& group);

} // namespace lolcats
