#pragma once
/// Fills arrays of the default execution space's memory from the host, with no copy of a whole array on the way.
#include "kernels/views.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

namespace lolcats {

/// Rows travel through two pinned buffers: one is filled while the other is on its way. Where the host can write the
/// memory itself, rows are read straight into place.
class Uploader {
public:
    static constexpr bool host_can_write =
        Kokkos::SpaceAccessibility<Kokkos::HostSpace, Execution::memory_space>::accessible;

    explicit Uploader(std::size_t buffer_bytes = std::size_t{32} << 20, bool in_place = host_can_write)
        : buffer_bytes_(buffer_bytes), in_place_(in_place) {}

    /// Calls `read(first, count, out)` for consecutive rows [first, first + count) that make up the matrix; it is to
    /// write them, dense, at `out`.
    template <class T, class Read>
    void fill(const Matrix<T>& matrix, Read&& read) {
        const auto rows = static_cast<std::int64_t>(matrix.extent(0));
        if (in_place_) return read(std::int64_t{0}, rows, matrix.data());
        const std::size_t row_bytes = matrix.extent(1) * sizeof(T);
        reserve(row_bytes);
        const auto most = static_cast<std::int64_t>(buffers_[0].extent(0) / row_bytes);
        for (std::int64_t first = 0, turn = 0; first < rows; first += most, turn ^= 1) {
            const std::int64_t count = std::min(most, rows - first);
            queues_[turn].fence("an upload buffer is free again");
            T* out = reinterpret_cast<T*>(buffers_[turn].data());
            read(first, count, out);
            const auto place = Kokkos::subview(matrix, Kokkos::make_pair(first, first + count), Kokkos::ALL);
            Kokkos::deep_copy(queues_[turn], Matrix<T>(place), Staged<T>(out, count, matrix.extent(1)));
        }
        for (const auto& queue : queues_) queue.fence("a weight is in place");
    }

private:
    template <class T>
    using Staged = Kokkos::View<const T**, Kokkos::LayoutRight, Kokkos::SharedHostPinnedSpace, Kokkos::MemoryUnmanaged>;

    void reserve(std::size_t row_bytes) {
        if (buffers_[0].extent(0) >= std::max(buffer_bytes_, row_bytes)) return;
        for (auto& buffer : buffers_) buffer = Buffer(uninitialized("upload"), std::max(buffer_bytes_, row_bytes));
    }

    static std::array<Execution, 2> make_queues() {
        if constexpr (host_can_write) return {Execution(), Execution()};
        const auto parts = Kokkos::Experimental::partition_space(Execution(), 1, 1);
        return {parts[0], parts[1]};
    }

    using Buffer = Kokkos::View<unsigned char*, Kokkos::SharedHostPinnedSpace>;
    std::size_t buffer_bytes_;
    bool in_place_;
    std::array<Buffer, 2> buffers_;
    std::array<Execution, 2> queues_ = make_queues();
};

} // namespace lolcats
