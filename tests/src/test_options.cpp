#include "lolcats/options.hpp"
#include "tests/support/errors.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace lolcats {
namespace {

namespace fs = std::filesystem;

/// Runs in an empty directory of its own, so that no ./lolcats.toml is there unless a test writes one.
class OptionsTest : public ::testing::Test {
protected:
    void SetUp() override {
        home_ = fs::current_path();
        directory_ = fs::temp_directory_path() / ("lolcats_options_" + std::to_string(getpid()));
        fs::create_directories(directory_);
        fs::current_path(directory_);
    }

    void TearDown() override {
        fs::current_path(home_);
        fs::remove_all(directory_);
    }

    static void write(const std::string& name, const std::string& text) { std::ofstream(name) << text; }

    Options parse(std::vector<const char*> arguments) {
        arguments.insert(arguments.begin(), "lolcats_test");
        Options options;
        go_on_ = parse_options(static_cast<int>(arguments.size()), arguments.data(), {"lolcats_test", "tests", ""},
                               options, text_);
        return options;
    }

    /// The message of the Error that these arguments cause.
    std::string error_of(const std::vector<const char*>& arguments) {
        return test::message_of([&] { parse(arguments); });
    }

    std::string error_of_file(const std::string& text) {
        write("lolcats.toml", text);
        return error_of({});
    }

    bool go_on_ = false;
    std::string text_;

private:
    fs::path home_;
    fs::path directory_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(OptionsTest, DefaultsStandWhenNothingIsGiven) {
    const Options options = parse({});
    EXPECT_TRUE(go_on_);
    EXPECT_EQ(to_json(options), to_json(Options{}));
    EXPECT_TRUE(options.given.empty());
}

TEST_F(OptionsTest, EveryKindOfValueIsRead) {
    const Options options = parse({"--model", "a b", "--window=32", "--lr", "1e-3", "--seed", "18446744073709551615",
                                   "--attention", "sliding", "--shuffle", "--tie-feature-maps=false"});
    EXPECT_EQ(options.model, "a b");
    EXPECT_EQ(options.window, 32);
    EXPECT_EQ(options.lr, 1e-3);
    EXPECT_EQ(options.seed, 18446744073709551615U);
    EXPECT_EQ(options.attention, "sliding");
    EXPECT_TRUE(options.shuffle);
    EXPECT_FALSE(options.tie_feature_maps);
    EXPECT_TRUE(options.is_given("tie-feature-maps"));
    EXPECT_FALSE(options.is_given("epochs"));
    EXPECT_EQ(options.given.size(), 7U);
}

TEST_F(OptionsTest, FlagsTakeAValueAfterAnEqualsSign) {
    EXPECT_TRUE(parse({"--shuffle=true"}).shuffle);
    EXPECT_FALSE(parse({"--shuffle=false"}).shuffle);
    EXPECT_HAS(error_of({"--shuffle=maybe"}), "--shuffle: 'maybe'");
    EXPECT_HAS(error_of({"--shuffle", "false"}), "unexpected argument 'false'");
}

TEST_F(OptionsTest, TheLastOfRepeatedValuesCounts) {
    EXPECT_EQ(parse({"--window", "8", "--window", "16"}).window, 16);
}

TEST_F(OptionsTest, ListsAreSplitAtCommasRepeatedOrArrays) {
    const std::vector<std::string> expected = {"q_proj", "v_proj"};
    EXPECT_EQ(parse({"--lora-modules", "q_proj,v_proj"}).lora_modules, expected);
    EXPECT_EQ(parse({"--lora-modules", "q_proj", "--lora-modules=v_proj"}).lora_modules, expected);
    write("lolcats.toml", "lora-modules = [\"q_proj\",\n  'v_proj', # both\n]\n");
    EXPECT_EQ(parse({}).lora_modules, expected);
    EXPECT_EQ(parse({"--lora-modules=o_proj"}).lora_modules, std::vector<std::string>{"o_proj"});
    EXPECT_HAS(error_of({"--lora-modules=q_proj,q"}), "'q' is not one of q_proj, k_proj, v_proj, o_proj");
    EXPECT_HAS(error_of({"--lora-modules="}), "lora-modules");
    EXPECT_HAS(error_of_file("lora-modules = []"), "empty");
}

TEST_F(OptionsTest, TheCommandLineOverridesTheFile) {
    write("run.toml", "# a run\nwindow = 128\nblock_layers = 9\nmodel = \"dir with #, and = in it\"\n\nshuffle = true\n"
                      "plan-tokens = 50_000_000\nlr = 2.5e-3 # comment\r\n");
    const Options options = parse({"--config", "run.toml", "--window", "32", "--shuffle=false"});
    EXPECT_EQ(options.window, 32);
    EXPECT_EQ(options.block_layers, 9);
    EXPECT_EQ(options.model, "dir with #, and = in it");
    EXPECT_FALSE(options.shuffle);
    EXPECT_EQ(options.plan_tokens, 5e7);
    EXPECT_EQ(options.lr, 2.5e-3);
    EXPECT_TRUE(options.is_given("block-layers"));
}

TEST_F(OptionsTest, TheFileOfTheCurrentDirectoryIsReadUnlessAnotherIsNamed) {
    write("lolcats.toml", "window = 16\n");
    write("other.toml", "epochs = 2\n");
    EXPECT_EQ(parse({}).window, 16);
    EXPECT_EQ(parse({"--config=other.toml"}).window, Options{}.window);
}

TEST_F(OptionsTest, AnEmptyValueIsAValue) {
    write("lolcats.toml", "model = \"m\"\nepochs = 3\n");
    const Options options = parse({"--config=", "--model=", "--work", "", "--window=3"});
    EXPECT_EQ(options.model, "");
    EXPECT_EQ(options.work, "");
    EXPECT_EQ(options.epochs, 3) << "an empty --config names no other file";
    EXPECT_EQ(options.window, 3);
    EXPECT_HAS(error_of({"--window=", "--lr=1"}), "--window: ''");
    EXPECT_HAS(error_of({"--shuffle="}), "unexpected argument ''");
}

TEST_F(OptionsTest, AnOptionIsNotTheValueOfTheOneBefore) {
    EXPECT_EQ(error_of({"--work", "--shuffle"}), "--work: a value is missing before '--shuffle'");
    EXPECT_EQ(error_of({"--window", "--lr", "1"}), "--window: a value is missing before '--lr'");
    EXPECT_EQ(error_of({"--config", "--lr", "1"}), "--config: a value is missing before '--lr'");
}

TEST_F(OptionsTest, AMissingFileIsAnError) {
    EXPECT_HAS(error_of({"--config", "none.toml"}), "none.toml");
}

TEST_F(OptionsTest, TextHasToBeUtf8) {
    EXPECT_EQ(parse({"--model", "m\xc3\xa9"}).model, "m\xc3\xa9");
    EXPECT_HAS(error_of({"--model", "m\xff"}), "--model: the value is not UTF-8");
    EXPECT_HAS(error_of({"--lora-modules", "q_proj,\xc3"}), "--lora-modules: the value is not UTF-8");
}

TEST_F(OptionsTest, UnknownKeysNameTheNearestKnownOne) {
    EXPECT_EQ(error_of_file("block-layer = 9\n"),
              "unknown key 'block-layer' in lolcats.toml; did you mean 'block-layers'?");
    fs::remove("lolcats.toml");
    EXPECT_EQ(error_of({"--windwo=3"}), "unknown option '--windwo'; did you mean '--window'?");
    EXPECT_EQ(error_of({"--block_layers", "9"}), "unknown option '--block_layers'; did you mean '--block-layers'?");
    EXPECT_HAS(error_of({"--zzzzzzzzzzzzzzzzz"}), "see --help");
    EXPECT_HAS(error_of({"stray"}), "unexpected argument 'stray'");
}

TEST_F(OptionsTest, NumbersOutOfRangeAreRefusedWithTheRange) {
    EXPECT_HAS(error_of({"--window", "0"}), "--window: '0' is not an integer at least 1 and at most 1048576");
    EXPECT_HAS(error_of({"--window", "3.5"}), "'3.5'");
    EXPECT_HAS(error_of({"--window", "64k"}), "'64k'");
    EXPECT_HAS(error_of({"--window", "99999999999"}), "--window");
    EXPECT_HAS(error_of({"--epochs=-1"}), "--epochs");
    EXPECT_HAS(error_of({"--epochs", "-1"}), "--epochs");
    EXPECT_HAS(error_of({"--seed=-1"}), "--seed");
    EXPECT_HAS(error_of({"--lr=nan"}), "--lr: 'nan' is not a number at least 0");
    EXPECT_HAS(error_of({"--lr=inf"}), "--lr");
    EXPECT_HAS(error_of({"--lr=1e999"}), "--lr");
    EXPECT_HAS(error_of({"--lr", "-0.1"}), "--lr");
    EXPECT_HAS(error_of({"--lr="}), "--lr");
    EXPECT_HAS(error_of({"--lora-dropout=1"}), "less than 1");
    EXPECT_HAS(error_of({"--epsilon=0"}), "greater than 0");
    EXPECT_HAS(error_of({"--beta2=1"}), "--beta2");
    EXPECT_HAS(error_of({"--window"}), "--window");
}

TEST_F(OptionsTest, EnumerationsListTheirChoices) {
    EXPECT_EQ(error_of({"--attention", "terrase"}),
              "--attention: 'terrase' is not one of teacher, terrace, sliding, none");
    EXPECT_HAS(error_of_file("\n\ndtype = \"fp16\""),
               "lolcats.toml, line 3: dtype: 'fp16' is not one of f32, bf16, fp8");
}

TEST_F(OptionsTest, ARecipeSettlesWhatIsLeftOpen) {
    const Options robust = parse({"--recipe=robust"});
    const Options paper = parse({"--recipe=paper"});
    EXPECT_EQ(to_json(parse({})), to_json(paper));
    const auto measured = to_json(robust);
    const auto defaults = to_json(paper);
    int differences = 0;
    for (const auto& [name, value] : measured.items()) {
        if (name == "recipe" || value == defaults.at(name)) continue;
        ++differences;
        EXPECT_FALSE(robust.is_given(name)) << name;
        const std::string back = fmt::format("--{}={}", name, defaults.at(name).dump());
        EXPECT_EQ(to_json(parse({"--recipe=robust", back.c_str()})).at(name), defaults.at(name))
            << "what is given comes first";
    }
    EXPECT_GE(differences, 1);
    write("lolcats.toml", "recipe = \"robust\"\nfar-xent-factor = 0\n");
    EXPECT_EQ(parse({}).far_xent_factor, 0);
}

TEST_F(OptionsTest, OptionsOfTheRobustRecipeAreChecked) {
    EXPECT_HAS(error_of({"--window-dropout=1.5"}), "at most 1");
    EXPECT_HAS(error_of({"--window-dropout=nan"}), "--window-dropout: 'nan'");
    EXPECT_HAS(error_of({"--window-dropout-kind=both"}), "branch, size");
    EXPECT_HAS(error_of({"--far-xent-factor=-1"}), "at least 0");
    EXPECT_HAS(error_of({"--kl-factor=inf"}), "--kl-factor");
    EXPECT_HAS(error_of({"--layer-loss=relative"}), "plain, normalized");
    EXPECT_HAS(error_of({"--keep-softmax-layers=-1"}), "at least 0");
    EXPECT_HAS(error_of({"--branch=near"}), "both, window, linear, window+sinks");
    EXPECT_HAS(error_of({"--sinks=0"}), "at least 1");
    EXPECT_HAS(error_of({"--recipe=best"}), "paper, robust");
}

TEST_F(OptionsTest, WhatIsNotFlatTomlIsRefused) {
    const std::pair<const char*, const char*> refused[] = {
        {"shuffle\n", "lolcats.toml, line 1: "},
        {"window = 8\nwindow = 9\n", "line 2: "},
        {"window = 8\nwindow = 9\n", "'window'"},
        {"min-lr = 1\nmin_lr = 2\n", "line 2: min-lr is set twice"},
        {"\n[training]\nlr = 1\n", "line 2: sections are not used"},
        {"training.lr = 1\n", "line 1: sections are not used"},
        {"lr = 1\nattention = terrace\n", "line 2: "},
        {"attention = terrace\n", "double quotes"},
        {"window = 1979-05-27\n", "a setting is text, a number"},
        {"window = 64.0\n", "'64.0'"},
        {"window = [1, 2]\n", "takes one value, not an array"},
        {"lora-modules = [[\"q_proj\"]]\n", "a setting is text, a number"},
        {"model = \"a\n", "line 1: "},
        {"model = \"\xff\"\n", "line 1: "},
        {"lora-modules = [\"q_proj\"\n", "line 1: "},
        {"window = 8 9\n", "line 1: "},
        {"window =\n", "line 1: "},
        {"= 3\n", "line 1: "},
    };
    for (const auto& [text, words] : refused) EXPECT_HAS(error_of_file(text), words);
}

TEST_F(OptionsTest, HelpListsEverySettingAndItsDefault) {
    parse({"--windwo=3", "--help"});
    EXPECT_FALSE(go_on_);
    const auto known = to_json(Options{});
    for (const auto& [name, value] : known.items()) EXPECT_HAS(text_, "--" + name);
    for (const char* part : {"Method:", "Training:", "=terrace", "=0.999", "{f32,bf16,fp8}", "--config"}) {
        EXPECT_HAS(text_, part);
    }
}

TEST_F(OptionsTest, VersionNamesTheProgram) {
    parse({"--version"});
    EXPECT_FALSE(go_on_);
    EXPECT_HAS(text_, "lolcats_test ");
}

TEST_F(OptionsTest, ResolvedSettingsKeepTheirTypesAndMarkTheGiven) {
    const Options options = parse({"--window=32", "--lr=0.5"});
    const auto json = to_json(options);
    EXPECT_EQ(json.at("window"), 32);
    EXPECT_EQ(json.at("lr"), 0.5);
    EXPECT_EQ(json.at("lora-modules").size(), 4U);
    EXPECT_EQ(json.at("shuffle"), false);
    const std::string table = to_table(options);
    EXPECT_HAS(table, "* window ");
    EXPECT_HAS(table, "  epochs ");
}

} // namespace
} // namespace lolcats
