#pragma once
/// Memory that arrays take, counted by Kokkos' own hooks.

namespace lolcats {

/// Bytes of the arrays in the default execution space's memory (a GPU's, or the host's) that are allocated while an
/// object of this class lives. One at a time.
class ArrayMemory {
public:
    ArrayMemory();
    ~ArrayMemory();
    ArrayMemory(const ArrayMemory&) = delete;
    ArrayMemory& operator=(const ArrayMemory&) = delete;

    [[nodiscard]] double largest() const;
};

} // namespace lolcats
