#pragma once
/// Errors a user can act on.
///
/// The message of an Error is one line that names the file, the thing that is wrong in it and the remedy. Programs
/// catch it at the top (lolcats/program.hpp), print it once and end every rank with a non-zero status.
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace lolcats {

class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Throws an Error with a message formatted as by fmt::format.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(fmt::format(format, std::forward<Args>(args)...));
}

} // namespace lolcats
