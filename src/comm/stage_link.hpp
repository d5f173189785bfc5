#pragma once
/// Activations and their gradients between neighbouring stages of a pipeline.
#include "kernels/views.hpp"
#include "src/comm/communicator.hpp"

#include <deque>

namespace lolcats {

class StageLink {
public:
    /// Messages that hold a copy of their data until the receiver has begun to take them.
    static constexpr std::size_t most_under_way = 4;

    explicit StageLink(const Communicator& pipeline) : pipeline_(pipeline) {}

    [[nodiscard]] int stage() const { return pipeline_.rank(); }
    [[nodiscard]] int stages() const { return pipeline_.size(); }
    [[nodiscard]] bool is_first() const { return stage() == 0; }
    [[nodiscard]] bool is_last() const { return stage() + 1 == stages(); }

    /// Sends return at once: neighbours that send to each other at the same time must not wait for each other. But a
    /// stage runs ahead by no more than `most_under_way` messages: then a send waits until the receiver takes one.
    void send_forward(const Matrix<float>& x) { send(x, pipeline_.rank() + 1, forward_tag); }
    void send_backward(const Matrix<float>& dx) { send(dx, pipeline_.rank() - 1, backward_tag); }
    void receive_forward(const Matrix<float>& x) const;
    void receive_backward(const Matrix<float>& dx) const;
    /// The first stage's word on every stage. It travels after what was sent before it; a stage waits for the one
    /// before it only.
    [[nodiscard]] bool pass_on(bool word) const;
    /// Waits until everything sent has left.
    void flush();
    [[nodiscard]] std::size_t bytes_sent() const { return bytes_sent_; }

private:
    static constexpr int forward_tag = 1;
    static constexpr int backward_tag = 2;
    static constexpr int word_tag = 3;

    struct Message {
        std::vector<float> data;
        Request request;
    };
    void send(const Matrix<float>& values, int destination, int tag);
    void receive(const Matrix<float>& values, int source, int tag) const;

    const Communicator& pipeline_;
    std::deque<Message> under_way_;
    std::size_t bytes_sent_ = 0;
};

} // namespace lolcats
