#include "src/comm/stage_link.hpp"

#include "kernels/elementwise.hpp"

namespace lolcats {

namespace {

int other_of_pair(const ArrayCommunicator& link) {
    return 1 - link.rank();
}

template <class T>
void receive_array(ArrayCommunicator& link, T* values, std::size_t count) {
    link.receive(values, count * sizeof(T), other_of_pair(link))->wait();
}

std::size_t bytes_of(Wire wire, const Matrix<float>& values) {
    return values.size() * (wire == Wire::bf16 ? sizeof(BFloat16) : sizeof(float));
}

void pack(Wire wire, const Matrix<float>& values, unsigned char* message) {
    if (wire == Wire::bf16) return narrow(values.data(), values.size(), reinterpret_cast<BFloat16*>(message));
    const Matrix<float> copy(reinterpret_cast<float*>(message), values.extent(0), values.extent(1));
    Kokkos::deep_copy(Execution(), copy, values);
}

/// One number goes over a new link. NCCL connects two ranks at their first message, for which it needs both of them
/// there; later sends then return at once.
void try_out(ArrayCommunicator& link, bool sends) {
    const Vector<float> number("first_message", 1);
    if (sends)
        link.send(number.data(), sizeof(float), other_of_pair(link))->wait();
    else
        receive_array(link, number.data(), 1);
}

} // namespace

StageLink::StageLink(const Communicator& pipeline, const ArrayTransport& transport, Flow flow, Wire wire)
    : pipeline_(pipeline.duplicate()) {
    forward_out_.wire = wire;
    pipeline_.limit_waiting(Patience("stages of a pipeline", transport.timeout));
    // First the links above even stages, then those above odd ones: every stage makes its two in a turn of their own.
    for (const int parity : {0, 1}) {
        const Communicator pair = pipeline.split((stage() + parity) / 2, stage());
        if (pair.size() == 2) connect(pair, stage() % 2 == parity, transport, flow);
    }
}

/// The two ends of a link close its communicators in the order in which they made them: to close one may need the other
/// end.
StageLink::~StageLink() {
    for (Outbox* outbox : {&forward_out_, &backward_out_})
        for (auto& slot : outbox->ring) slot.transfer.reset();
    for (const int parity : {0, 1}) {
        const bool is_lower = stage() % 2 == parity;
        (is_lower ? forward_out_.link : forward_in_).reset();
        (is_lower ? backward_in_ : backward_out_.link).reset();
    }
}

void StageLink::connect(const Communicator& pair, bool is_lower, const ArrayTransport& transport, Flow flow) {
    const int lower = is_lower ? stage() : stage() - 1;
    const std::string stages = fmt::format("pipeline stages {} and {}", lower, lower + 1);
    auto& forward = is_lower ? forward_out_.link : forward_in_;
    forward = make_array_communicator(pair, transport, stages + ", forward", blocks_of_link);
    try_out(*forward, is_lower);
    if (flow == Flow::forward) return;
    auto& backward = is_lower ? backward_in_ : backward_out_.link;
    backward = make_array_communicator(pair, transport, stages + ", backward", blocks_of_link);
    try_out(*backward, !is_lower);
}

void StageLink::receive_forward(const Matrix<float>& x) {
    if (forward_out_.wire == Wire::f32) return receive_array(*forward_in_, x.data(), x.size());
    BFloat16* const message = reserve(arrived_, x.size(), "message");
    receive_array(*forward_in_, message, x.size());
    widen(message, x.size(), x.data());
}

void StageLink::receive_backward(const Matrix<float>& dx) const {
    receive_array(*backward_in_, dx.data(), dx.size());
}

bool StageLink::pass_on(bool word) const {
    float number = word ? 1 : 0;
    if (!is_first()) pipeline_.receive(&number, 1, stage() - 1, word_tag);
    if (!is_last()) pipeline_.send(&number, 1, stage() + 1, word_tag);
    return number != 0;
}

void StageLink::flush() {
    forward_out_.flush();
    backward_out_.flush();
}

void StageLink::Outbox::send(const Matrix<float>& values) {
    Slot& slot = ring[next++ % most_under_way];
    if (slot.transfer) slot.transfer->wait();
    const std::size_t bytes = bytes_of(wire, values);
    if (slot.data.size() < bytes) {
        for (Slot& each : ring) {
            if (each.transfer) each.transfer->wait();
            each.data = Vector<unsigned char>(uninitialized("message"), bytes);
        }
    }
    pack(wire, values, slot.data.data());
    bytes_sent += bytes;
    slot.transfer = link->send(slot.data.data(), bytes, other_of_pair(*link));
}

void StageLink::Outbox::flush() {
    for (Slot& slot : ring)
        if (slot.transfer) slot.transfer->wait();
}

} // namespace lolcats
