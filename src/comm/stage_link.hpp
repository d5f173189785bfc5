#pragma once
/// Activations and their gradients between neighbouring stages of a pipeline.
#include "kernels/views.hpp"
#include "src/comm/communicator.hpp"

#include <deque>

namespace lolcats {

class StageLink {
public:
    explicit StageLink(const Communicator& pipeline) : pipeline_(pipeline) {}

    [[nodiscard]] int stage() const { return pipeline_.rank(); }
    [[nodiscard]] int stages() const { return pipeline_.size(); }
    [[nodiscard]] bool is_first() const { return stage() == 0; }
    [[nodiscard]] bool is_last() const { return stage() + 1 == stages(); }

    /// Sends return at once: neighbours that send to each other at the same time must not wait for each other.
    void send_forward(const Matrix<float>& x) { send(x, pipeline_.rank() + 1, forward_tag); }
    void send_backward(const Matrix<float>& dx) { send(dx, pipeline_.rank() - 1, backward_tag); }
    void receive_forward(const Matrix<float>& x) const;
    void receive_backward(const Matrix<float>& dx) const;
    /// Waits until everything sent has left.
    void flush();

private:
    static constexpr int forward_tag = 1;
    static constexpr int backward_tag = 2;
    /// Messages under way that hold a copy of their data; the oldest is waited for when there are more.
    static constexpr std::size_t most_under_way = 4;

    struct Message {
        std::vector<float> data;
        Request request;
    };
    void send(const Matrix<float>& values, int destination, int tag);
    void receive(const Matrix<float>& values, int source, int tag) const;

    const Communicator& pipeline_;
    std::deque<Message> under_way_;
};

} // namespace lolcats
