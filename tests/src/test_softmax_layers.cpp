#include "src/stages/softmax_layers.hpp"

#include "tests/model/small_config.hpp"
#include "tests/support/errors.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

std::string error_of(const Options& options) {
    return test::message_of([&] { softmax_layers(options, test::small_config(4), nullptr, ""); });
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
    EXPECT_TRUE(softmax_layers(options, test::small_config(4), nullptr, "").empty());
    options.softmax_layers = {"3", "1"};
    EXPECT_EQ(softmax_layers(options, test::small_config(4), nullptr, ""), (std::set<int>{1, 3}));
}

TEST(SoftmaxLayers, WhatCannotBeIsRefused) {
    Options options;
    options.softmax_layers = {"4"};
    test::expect_contains(error_of(options), "layers are 0 to 3");
    options.softmax_layers = {"x"};
    test::expect_contains(error_of(options), "--softmax-layers: 'x'");
    options.softmax_layers = {"1"};
    options.given.insert("keep-softmax-layers");
    test::expect_contains(error_of(options), "give one of them");
    options = {};
    options.keep_softmax_layers = 5;
    test::expect_contains(error_of(options), "4 layers");
    options.keep_softmax_layers = 1;
    test::expect_contains(error_of(options), "no feature maps");
}

} // namespace
} // namespace lolcats
