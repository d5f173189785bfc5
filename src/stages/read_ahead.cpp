#include "src/stages/read_ahead.hpp"

namespace lolcats {

ReadAhead::ReadAhead(Read read, int rows, int width, int most)
    : read_(std::move(read)), rows_(rows),
      buffer_(uninitialized("read_ahead"), static_cast<std::size_t>(most) * rows, width) {}

ReadAhead::~ReadAhead() {
    wait();
}

void ReadAhead::expect(const Sequences& sequences) {
    wait();
    expected_ = sequences;
    if (sequences.empty()) return;
    reading_ = std::async(std::launch::async, [this] { read_(expected_, buffer_.data()); });
}

void ReadAhead::fetch(const Sequences& sequences, const Matrix<float>& x) {
    if (!reading_.valid() || expected_ != sequences) expect(sequences);
    reading_.get();
    const int rows = static_cast<int>(sequences.size()) * rows_;
    Kokkos::deep_copy(x, Kokkos::subview(buffer_, Kokkos::make_pair(0, rows), Kokkos::ALL));
}

void ReadAhead::wait() noexcept {
    if (reading_.valid()) reading_.wait();
}

} // namespace lolcats
