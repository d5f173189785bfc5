#include "io/json.hpp"

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

std::string lists(std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
}

TEST(Json, IsReadToABoundedDepth) {
    EXPECT_EQ(parse_json(lists(deepest_json), "f", "").dump(), lists(deepest_json));
    for (const std::size_t depth : {std::size_t{deepest_json} + 2, std::size_t{1'000'000}}) {
        EXPECT_EQ(message_of([&] { parse_json(lists(depth), "a.json", "make it again"); }),
                  "a.json: is nested more than 32 levels deep; make it again");
        EXPECT_TRUE(parse_json_or_discard(lists(depth)).is_discarded());
    }
}

TEST(Json, UnclosedNestingIsRefusedTheSameWay) {
    std::string objects;
    for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
    expect_contains(message_of([&] { parse_json(objects, "a.json", "make it again"); }), "a.json: is nested");
    EXPECT_TRUE(parse_json_or_discard(objects).is_discarded());
}

TEST(Json, WhatIsNoJsonThrowsOrIsDiscarded) {
    for (const char* text : {"", "{", "{}x", "\"\xff\""}) {
        EXPECT_THROW(parse_json(text, "f", ""), nlohmann::json::exception) << text;
        EXPECT_TRUE(parse_json_or_discard(text).is_discarded()) << text;
    }
    EXPECT_EQ(parse_json_or_discard("{\"a\": [1, 2]}").at("a").size(), 2U);
}

} // namespace
} // namespace lolcats::io
