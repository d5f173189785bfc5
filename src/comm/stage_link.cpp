#include "src/comm/stage_link.hpp"

namespace lolcats {

void StageLink::receive_forward(const Matrix<float>& x) const {
    receive(x, pipeline_.rank() - 1, forward_tag);
}

void StageLink::receive_backward(const Matrix<float>& dx) const {
    receive(dx, pipeline_.rank() + 1, backward_tag);
}

bool StageLink::pass_on(bool word) const {
    float number = word ? 1 : 0;
    if (!is_first()) pipeline_.receive(&number, 1, stage() - 1, word_tag);
    if (!is_last()) pipeline_.send(&number, 1, stage() + 1, word_tag);
    return number != 0;
}

void StageLink::flush() {
    for (auto& message : under_way_) message.request.wait();
    under_way_.clear();
}

void StageLink::send(const Matrix<float>& values, int destination, int tag) {
    if (under_way_.size() == most_under_way) {
        under_way_.front().request.wait();
        under_way_.pop_front();
    }
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, values);
    auto& message = under_way_.emplace_back();
    message.data.assign(host.data(), host.data() + host.size());
    bytes_sent_ += host.size() * sizeof(float);
    // A plain send of a small message is over before anyone asked for it, and MPI would buffer any number of them.
    message.request = pipeline_.issend(message.data.data(), message.data.size(), destination, tag);
}

void StageLink::receive(const Matrix<float>& values, int source, int tag) const {
    const auto host = Kokkos::create_mirror_view(values);
    pipeline_.receive(host.data(), host.size(), source, tag);
    Kokkos::deep_copy(values, host);
}

} // namespace lolcats
