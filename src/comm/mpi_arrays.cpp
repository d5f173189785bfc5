#include "src/comm/mpi_arrays.hpp"

#include "kernels/views.hpp"
#include "src/comm/pieces.hpp"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace lolcats {

namespace {

constexpr bool host_reaches_arrays = Kokkos::SpaceAccessibility<Kokkos::HostSpace, Execution::memory_space>::accessible;
constexpr std::size_t staged_piece = std::size_t{32} << 20; ///< bytes of a collective operation that travel at once

using Staging = Kokkos::View<unsigned char*, Kokkos::SharedHostPinnedSpace>;
using StagedBytes = Kokkos::View<unsigned char*, Kokkos::SharedHostPinnedSpace, Kokkos::MemoryUnmanaged>;
using ArrayBytes = Kokkos::View<unsigned char*, Execution::memory_space, Kokkos::MemoryUnmanaged>;

void copy_in(const Staging& staging, const void* array, std::size_t count) {
    const ArrayBytes from(static_cast<unsigned char*>(const_cast<void*>(array)), count);
    Kokkos::deep_copy(Execution(), StagedBytes(staging.data(), count), from);
    Execution().fence("an array is in the host's memory");
}

void copy_out(void* array, const Staging& staging, std::size_t count) {
    const ArrayBytes to(static_cast<unsigned char*>(array), count);
    Kokkos::deep_copy(Execution(), to, StagedBytes(staging.data(), count));
    Execution().fence("the host's memory is free again");
}

class MpiTransfer final : public Transfer {
public:
    /// `finish` is called once the message has travelled.
    MpiTransfer(const Patience& patience, const char* what, Request request, std::function<void()> finish = {})
        : patience_(patience), what_(what), finish_(std::move(finish)), request_(std::move(request)) {}

    void wait() override {
        patience_.wait(what_, [&] { return request_.test(); });
        if (finish_) std::exchange(finish_, {})();
    }

private:
    const Patience& patience_;
    const char* what_;
    std::function<void()> finish_; ///< holds the staging memory, which the request must not outlive
    Request request_;
};

class MpiArrays final : public ArrayCommunicator {
public:
    MpiArrays(const Communicator& group, const Patience& patience) : ArrayCommunicator(group, patience) {}

    [[nodiscard]] const char* name() const override { return "MPI"; }

    std::unique_ptr<Transfer> sum(float* values, std::size_t count) override { return start_sum(values, count); }
    std::unique_ptr<Transfer> sum(double* values, std::size_t count) override { return start_sum(values, count); }

    std::unique_ptr<Transfer> broadcast(void* bytes, std::size_t count, int root) override {
        constexpr const char* what = "a broadcast";
        if constexpr (host_reaches_arrays) {
            Execution().fence("an array is to be broadcast");
            return start(what, control_.start_broadcast(bytes, count, root));
        }
        return by_pieces(static_cast<unsigned char*>(bytes), count, [&](unsigned char* piece, std::size_t size) {
            start(what, control_.start_broadcast(piece, size, root))->wait();
        });
    }

    std::unique_ptr<Transfer> send(const void* bytes, std::size_t count, int destination) override {
        const auto issend = [&](const void* from) {
            // A plain send of a small message is over before anyone asked for it, and MPI would buffer any number of
            // them.
            return control_.issend(static_cast<const std::byte*>(from), count, destination, tag);
        };
        constexpr const char* what = "a message to another rank";
        if constexpr (host_reaches_arrays) {
            Execution().fence("a message is to be sent");
            return start(what, issend(bytes));
        }
        const Staging staging = take_staging(count);
        copy_in(staging, bytes, count);
        return start(what, issend(staging.data()), [this, staging] { free_.push_back(staging); });
    }

    std::unique_ptr<Transfer> receive(void* bytes, std::size_t count, int source) override {
        const auto ireceive = [&](void* to) {
            return control_.ireceive(static_cast<std::byte*>(to), count, source, tag);
        };
        constexpr const char* what = "a message from another rank";
        if constexpr (host_reaches_arrays) {
            Execution().fence("a message is to be received");
            return start(what, ireceive(bytes));
        }
        const Staging staging = take_staging(count);
        return start(what, ireceive(staging.data()), [this, staging, bytes, count] {
            copy_out(bytes, staging, count);
            free_.push_back(staging);
        });
    }

private:
    static constexpr int tag = 1; ///< the communicator is this group's own

    std::unique_ptr<Transfer> start(const char* what, Request request, std::function<void()> finish = {}) const {
        return std::make_unique<MpiTransfer>(patience_, what, std::move(request), std::move(finish));
    }

    template <class T>
    std::unique_ptr<Transfer> start_sum(T* values, std::size_t count) {
        constexpr const char* what = "a sum over ranks";
        if constexpr (host_reaches_arrays) {
            Execution().fence("an array is to be summed");
            return start(what, control_.start_sum(values, count));
        }
        return by_pieces(values, count,
                         [&](T* piece, std::size_t size) { start(what, control_.start_sum(piece, size))->wait(); });
    }

    /// Calls visit(piece, size) for copies in the host's memory, one after the other, and brings back what it makes of
    /// them.
    template <class T, class Visit>
    std::unique_ptr<Transfer> by_pieces(T* values, std::size_t count, Visit&& visit) {
        const Staging staging = take_staging(std::min(count * sizeof(T), staged_piece));
        for_pieces(count, staged_piece / sizeof(T), [&](std::size_t offset, int size) {
            const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
            copy_in(staging, values + offset, bytes);
            visit(reinterpret_cast<T*>(staging.data()), static_cast<std::size_t>(size));
            copy_out(values + offset, staging, bytes);
        });
        free_.push_back(staging);
        return start("", Request());
    }

    /// Pinned memory is dear to get: what messages no longer need is used again.
    Staging take_staging(std::size_t bytes) {
        const auto fits = [&](const Staging& staging) { return staging.extent(0) >= bytes; };
        const auto found = std::find_if(free_.begin(), free_.end(), fits);
        if (found == free_.end()) return Staging(uninitialized("staging"), bytes);
        Staging staging = *found;
        free_.erase(found);
        return staging;
    }

    std::vector<Staging> free_;
};

} // namespace

std::unique_ptr<ArrayCommunicator> make_mpi_arrays(const Communicator& group, const Patience& patience) {
    return std::make_unique<MpiArrays>(group, patience);
}

} // namespace lolcats
