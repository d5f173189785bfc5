#include "src/stages/softmax_layers.hpp"

#include "lolcats/error.hpp"
#include "tests/model/small_config.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

std::string error_of(const Options& options) {
    try {
        softmax_layers(options, test::small_config(4), nullptr);
    } catch (const Error& error) {
        return error.what();
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
}

TEST(SoftmaxLayers, ListsAreTextAndBack) {
    EXPECT_EQ(layers_from_text("7", "x"), std::set<int>{7});
    EXPECT_EQ(layers_from_text("3,0,11", "x"), (std::set<int>{0, 3, 11}));
    EXPECT_EQ(to_text(std::set<int>{0, 3, 11}), "0,3,11");
    EXPECT_EQ(to_text(std::set<int>{}), "");
    for (const char* bad : {"", "a", "1,", ",1", "-1", "1;2", "99999999999"})
        EXPECT_THROW(layers_from_text(bad, "x"), Error) << bad;
}

TEST(SoftmaxLayers, AreThoseNamedOrNone) {
    Options options;
    EXPECT_TRUE(softmax_layers(options, test::small_config(4), nullptr).empty());
    options.softmax_layers = {"3", "1"};
    EXPECT_EQ(softmax_layers(options, test::small_config(4), nullptr), (std::set<int>{1, 3}));
}

TEST(SoftmaxLayers, WhatCannotBeIsRefused) {
    Options options;
    options.softmax_layers = {"4"};
    EXPECT_NE(error_of(options).find("layers are 0 to 3"), std::string::npos);
    options.softmax_layers = {"x"};
    EXPECT_NE(error_of(options).find("--softmax-layers: 'x'"), std::string::npos);
    options.softmax_layers = {"1"};
    options.given.insert("keep-softmax-layers");
    EXPECT_NE(error_of(options).find("give one of them"), std::string::npos);
    options = {};
    options.keep_softmax_layers = 5;
    EXPECT_NE(error_of(options).find("4 layers"), std::string::npos);
    options.keep_softmax_layers = 1;
    EXPECT_NE(error_of(options).find("no feature maps"), std::string::npos);
}

} // namespace
} // namespace lolcats
