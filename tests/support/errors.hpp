#pragma once
/// What tests ask of the errors that they provoke.
#include "lolcats/error.hpp"

#include <gtest/gtest.h>

#include <string>

namespace lolcats::test {

/// The message of the Error that `action` throws, which is to be one line; a test failure, and nothing, if it throws
/// none.
template <class Action>
std::string message_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_EQ(message.find('\n'), std::string::npos) << "not one line: " << message;
        return message;
    }
    ADD_FAILURE() << "no Error was thrown";
    return {};
}

inline void expect_contains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

} // namespace lolcats::test
