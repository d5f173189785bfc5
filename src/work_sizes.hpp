#pragma once
/// How much is in flight at once: memory grows with it (src/memory_plan.hpp).
#include <cstddef>

namespace lolcats {

/// Rows of logits that the LM head holds.
inline constexpr int head_rows = 256;

/// Messages to a neighbouring stage, each way, that hold a copy of their data until the receiver has begun to take
/// them.
inline constexpr std::size_t messages_under_way = 4;

} // namespace lolcats
