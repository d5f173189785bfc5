#pragma once
/// Activations and their gradients between neighbouring stages of a pipeline.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"
#include "src/comm/array_communicator.hpp"
#include "src/work_sizes.hpp"

#include <array>
#include <memory>

namespace lolcats {

/// Which ways arrays flow.
enum class Flow { forward, both };

/// The type of numbers on their way forward. Gradients travel in float.
enum class Wire {
    f32,
    bf16 ///< rounded, which changes nothing where they are bf16 values already
};

/// Each pair of neighbours has a communicator of its own for each way, and so, on a GPU, a stream of its own.
///
/// That is what keeps the 1F1B schedule from standing still. NCCL carries out a communicator's operations one after the
/// other, and a send is over only once the receiver has taken it. In the steady phase a stage sends an activation on
/// while the next one sends a gradient back: on one communicator each would wait for its send to be taken before it
/// came to receive. With one for each way but all stages together, a stage could not receive the next activation before
/// the last one it sent was taken, and would never run ahead.
///
/// A receive begins when its data is needed, not before: NCCL's kernel would hold its multiprocessors while it waits,
/// and slow the compute beside it by more than the transfer takes.
///
/// Any synchronisation of the whole device (an allocation, say) waits for all that is in flight. That is safe too: the
/// schedule calls each send and the receive after it with no compute in between, so of two neighbours that wait for
/// each other, both have called both.
class StageLink {
public:
    /// Messages each way that hold a copy of their data until the receiver has begun to take them.
    static constexpr std::size_t most_under_way = messages_under_way;

    /// Collective over `pipeline`.
    StageLink(const Communicator& pipeline, const ArrayTransport& transport, Flow flow, Wire wire = Wire::f32);
    StageLink(const StageLink&) = delete;
    StageLink& operator=(const StageLink&) = delete;
    ~StageLink();

    [[nodiscard]] int stage() const { return pipeline_.rank(); }
    [[nodiscard]] int stages() const { return pipeline_.size(); }
    [[nodiscard]] bool is_first() const { return stage() == 0; }
    [[nodiscard]] bool is_last() const { return stage() + 1 == stages(); }

    /// Sends return at once: neighbours that send to each other at the same time must not wait for each other. But a
    /// stage runs ahead by no more than `most_under_way` messages: then a send waits until the receiver takes one. The
    /// first message is the largest.
    void send_forward(const Matrix<float>& x) { forward_out_.send(x); }
    void send_backward(const Matrix<float>& dx) { backward_out_.send(dx); }
    /// Returns when the message is there.
    void receive_forward(const Matrix<float>& x);
    void receive_backward(const Matrix<float>& dx) const;
    /// The first stage's word on every stage. It travels after what was sent before it; a stage waits for the one
    /// before it only.
    [[nodiscard]] bool pass_on(bool word) const;
    /// Waits until everything sent has left.
    void flush();
    [[nodiscard]] std::size_t bytes_sent() const { return forward_out_.bytes_sent + backward_out_.bytes_sent; }

private:
    static constexpr int word_tag = 3;

    /// What leaves this stage one way, in a ring of buffers that is allocated once.
    struct Outbox {
        struct Slot {
            Vector<unsigned char> data;
            std::unique_ptr<Transfer> transfer;
        };
        std::unique_ptr<ArrayCommunicator> link;
        Wire wire = Wire::f32;
        std::array<Slot, most_under_way> ring;
        std::size_t next = 0;
        std::size_t bytes_sent = 0;

        void send(const Matrix<float>& values);
        void flush();
    };

    void connect(const Communicator& pair, bool is_lower, const ArrayTransport& transport, Flow flow);

    Communicator pipeline_;
    std::unique_ptr<ArrayCommunicator> forward_in_;
    std::unique_ptr<ArrayCommunicator> backward_in_;
    Outbox forward_out_;
    Outbox backward_out_;
    Vector<BFloat16> arrived_; ///< a message in bf16, before it is widened
};

} // namespace lolcats
