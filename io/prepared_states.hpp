#pragma once
/// A sequence's hidden states made ready to be stored: rounded, checked and hashed in one go. Internal to io/.
#include <cstddef>
#include <cstdint>

#include "lolcats/bfloat16.hpp"

namespace lolcats::io {

struct PreparedStates {
    bool finite;            ///< every element, as stored
    std::uint64_t checksum; ///< stored_checksum() of the stored bytes
};

/// States that are stored as they are.
PreparedStates prepare_states(const float* states, std::size_t count);
/// What is not finite stays so when it is rounded, and what overflows joins it.
PreparedStates prepare_states(const float* states, std::size_t count, BFloat16* rounded);

/// What /checksums says of a sequence's stored bytes.
std::uint64_t stored_checksum(const void* data, std::size_t bytes);

} // namespace lolcats::io
