#pragma once
/// Carves arrays out of a workspace. The same calls with no memory behind them give the size to ask for.
#include "kernels/cuda/attention.hpp"

#include <stdexcept>
#include <string>

namespace lolcats::cuda {

class Arena {
public:
    /// Counts only: arrays taken from it are null.
    Arena() = default;
    explicit Arena(const Workspace& workspace)
        : begin_(static_cast<unsigned char*>(workspace.data)), bytes_(workspace.bytes) {}

    template <class T>
    T* take(std::size_t count) {
        constexpr std::size_t alignment = 256;
        unsigned char* array = begin_ == nullptr ? nullptr : begin_ + used_;
        used_ += (count * sizeof(T) + alignment - 1) / alignment * alignment;
        if (begin_ != nullptr && used_ > bytes_)
            throw std::invalid_argument("a workspace of " + std::to_string(bytes_) + " bytes is less than the " +
                                        std::to_string(used_) + " asked for so far");
        return reinterpret_cast<T*>(array);
    }

    [[nodiscard]] std::size_t used() const { return used_; }

private:
    unsigned char* begin_ = nullptr;
    std::size_t bytes_ = 0;
    std::size_t used_ = 0;
};

} // namespace lolcats::cuda
