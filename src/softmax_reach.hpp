#pragma once
/// Sequences that are too short for the linear attention.
#include <fmt/format.h>

#include <string>
#include <string_view>

namespace lolcats {

/// A warning where sequences of `length` tokens never leave the softmax window, else "". `attention` is as the setting.
inline std::string pure_softmax_warning(std::string_view attention, int window, int length) {
    if (attention != "terrace" && attention != "sliding") return {};
    const int reach = attention == "terrace" ? 2 * window : window;
    if (length > reach) return {};
    return fmt::format("sequences of {} tokens never leave the softmax window ({} keys): nothing is learnt about the "
                       "linear attention; use longer sequences or a smaller window",
                       length, reach);
}

} // namespace lolcats
