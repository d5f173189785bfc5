#pragma once
/// Carves arrays out of one team's scratch memory. The same calls with no memory behind them give the size to ask for.
#include "kernels/views.hpp"

#include <cstddef>

namespace lolcats {

template <class Real>
class Scratch {
public:
    /// Counts only: arrays taken from it are null.
    Scratch() = default;
    KOKKOS_INLINE_FUNCTION explicit Scratch(void* memory) : begin_(static_cast<Real*>(memory)) {}

    KOKKOS_INLINE_FUNCTION Real* take(std::size_t count) {
        Real* array = begin_ == nullptr ? nullptr : begin_ + used_;
        used_ += (count + alignment - 1) / alignment * alignment;
        return array;
    }

    [[nodiscard]] KOKKOS_INLINE_FUNCTION std::size_t bytes() const { return used_ * sizeof(Real); }

private:
    static constexpr std::size_t alignment = 64 / sizeof(Real);
    Real* begin_ = nullptr;
    std::size_t used_ = 0;
};

/// One team for each of `teams` independent pieces of work, with `bytes` of scratch memory each.
inline Kokkos::TeamPolicy<Execution> team_policy(int teams, std::size_t bytes) {
    return Kokkos::TeamPolicy<Execution>(teams, Kokkos::AUTO).set_scratch_size(1, Kokkos::PerTeam(bytes));
}

} // namespace lolcats
