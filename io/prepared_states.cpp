#include "io/prepared_states.hpp"

#include <algorithm>
#include <span>

#include "io/dtype.hpp"
#include "io/file.hpp"

namespace lolcats::io {
namespace {

/// Calls tile(offset, size) for pieces that stay in a core's cache from one look at them to the next.
template <class Tile>
PreparedStates prepare_tiles(std::size_t count, Tile&& tile) {
    constexpr std::size_t largest = 32768;
    Hash64 hash;
    bool finite = true;
    for (std::size_t i = 0; i < count; i += largest) {
        const auto stored = tile(i, std::min(largest, count - i));
        finite = finite && all_finite(stored.data(), stored.size());
        hash.update(std::as_bytes(stored));
    }
    return {finite, hash.digest()};
}

} // namespace

PreparedStates prepare_states(const float* states, std::size_t count) {
    return prepare_tiles(count, [&](std::size_t i, std::size_t n) { return std::span(states + i, n); });
}

PreparedStates prepare_states(const float* states, std::size_t count, BFloat16* rounded) {
    return prepare_tiles(count, [&](std::size_t i, std::size_t n) {
        convert_elements(DType::f32, states + i, n, rounded + i);
        return std::span<const BFloat16>(rounded + i, n);
    });
}

std::uint64_t stored_checksum(const void* data, std::size_t bytes) {
    return hash64({static_cast<const std::byte*>(data), bytes});
}

} // namespace lolcats::io
