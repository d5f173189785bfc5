#pragma once
/// Array types of the kernels. All are dense and row-major: the last index is the fastest.
#include <Kokkos_Core.hpp>
#include <Kokkos_Profiling_ScopedRegion.hpp>

#include <cstdint>
#include <string>
#include <type_traits>

namespace lolcats {

using Execution = Kokkos::DefaultExecutionSpace;
using Team = Kokkos::TeamPolicy<Execution>::member_type;
inline constexpr bool runs_on_host = std::is_same_v<Execution, Kokkos::DefaultHostExecutionSpace>;

/// Of one array's elements, which may be more than a GPU's own type of indices counts.
using Elements = Kokkos::RangePolicy<Execution, Kokkos::IndexType<std::int64_t>>;

template <class T>
using Vector = Kokkos::View<T*, Kokkos::LayoutRight>;
template <class T>
using Matrix = Kokkos::View<T**, Kokkos::LayoutRight>;
template <class T>
using Tensor3 = Kokkos::View<T***, Kokkos::LayoutRight>;

/// Views of the first rows of a larger buffer, so that one allocation serves batches of any size up to its own.
template <class T>
Matrix<T> first_rows(const Matrix<T>& matrix, int rows) {
    return Kokkos::subview(matrix, Kokkos::make_pair(0, rows), Kokkos::ALL);
}

/// Memory that is written before it is read: not zeroed.
inline auto uninitialized(const std::string& label) {
    return Kokkos::view_alloc(Kokkos::WithoutInitializing, label);
}

/// An array of at least `size` elements that keeps its memory from one use to the next.
template <class T>
T* reserve(Vector<T>& buffer, std::size_t size, const char* label) {
    if (buffer.extent(0) < size) {
        buffer = {}; // hand the old memory back first
        buffer = Vector<T>(uninitialized(label), size);
    }
    return buffer.data();
}

} // namespace lolcats
