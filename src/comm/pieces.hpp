#pragma once
/// MPI 3 counts are ints, so longer buffers travel in pieces.
#include <algorithm>
#include <cstddef>

namespace lolcats {

inline constexpr std::size_t largest_piece = std::size_t{1} << 30;

/// Calls visit(offset, size) for consecutive pieces of at most `limit` that make up `count`; never for count 0.
template <class Visit>
void for_pieces(std::size_t count, std::size_t limit, Visit&& visit) {
    for (std::size_t offset = 0; offset < count; offset += limit) {
        visit(offset, static_cast<int>(std::min(limit, count - offset)));
    }
}

} // namespace lolcats
