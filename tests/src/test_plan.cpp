#include "lolcats/plan.hpp"
#include "tests/support/errors.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

namespace lolcats {
namespace {

ModelConfig read_model(const std::string& name) {
    const auto data = std::filesystem::path(LOLCATS_TEST_DATA) / "configs";
    return read_model_config(data / (name + ".json"));
}

Options options_405b(int block_layers) {
    Options options;
    options.block_layers = block_layers;
    options.plan_tokens = 50e6;
    return options;
}

const BlockPlan& chosen(const Plan& plan) {
    return plan.choices.at(plan.chosen);
}

TEST(PlanTest, StoreOf405BIsThePapersFigure) {
    const Plan one = make_plan(read_model("llama-3.1-405b"), options_405b(1));
    EXPECT_EQ(chosen(one).store_bytes_paper, 2.0 * 126 * 50e6 * 16384);
    EXPECT_NEAR(chosen(one).store_bytes_paper, 206e12, 0.5e12);
    EXPECT_EQ(chosen(one).store_bytes, 2.0 * 125 * 50e6 * 16384);
    const Plan nine = make_plan(read_model("llama-3.1-405b"), options_405b(9));
    EXPECT_NEAR(chosen(nine).store_bytes_paper, 23e12, 0.5e12);
    EXPECT_EQ(chosen(nine).store_bytes, 2.0 * 13 * 50e6 * 16384);
}

TEST(PlanTest, WeightsAndArithmeticOf405B) {
    const Plan plan = make_plan(read_model("llama-3.1-405b"), options_405b(9));
    EXPECT_EQ(plan.parameters, 405853388800.0);
    EXPECT_NEAR(plan.flops_per_token_layer, 6.38e9, 0.005e9);
    EXPECT_NEAR(chosen(plan).block_weight_bytes, 57.4e9, 0.05e9);
    EXPECT_EQ(chosen(plan).blocks, 14);
    EXPECT_EQ(chosen(plan).ranks, 14);
    EXPECT_LT(chosen(plan).largest_memory(), 80e9);
    EXPECT_TRUE(plan.warnings.empty()) << plan.warnings.front();
}

TEST(PlanTest, EightBitWeightsOf405BTakeHalfTheMemoryAndTheSameFiles) {
    Options options = options_405b(9);
    const Plan half = make_plan(read_model("llama-3.1-405b"), options);
    options.dtype = "fp8";
    const Plan plan = make_plan(read_model("llama-3.1-405b"), options);
    // A scale an output of q, k, v, o, gate, up and down.
    const double scales = 4.0 * (16384 + 2 * 1024 + 16384 + 2 * 53248 + 16384);
    EXPECT_DOUBLE_EQ(chosen(plan).block_weight_bytes, chosen(half).block_weight_bytes / 2 + 9 * scales);
    EXPECT_DOUBLE_EQ(plan.weight_bytes, half.weight_bytes - 126 * (plan.layer_parameters - scales));
    EXPECT_DOUBLE_EQ(plan.checkpoint_bytes, half.checkpoint_bytes);
    EXPECT_DOUBLE_EQ(chosen(plan).store_bytes, chosen(half).store_bytes);
    EXPECT_DOUBLE_EQ(chosen(plan).io_hours[0], chosen(half).io_hours[0]);
    EXPECT_LT(chosen(plan).largest_memory(), chosen(half).largest_memory() - 20e9);
}

TEST(PlanTest, ParametersOfTheOtherModels) {
    EXPECT_EQ(make_plan(read_model("llama-3.1-8b"), {}).parameters, 8030261248.0);
    EXPECT_EQ(make_plan(read_model("llama-3.1-70b"), {}).parameters, 70553706496.0);
    EXPECT_EQ(make_plan(read_model("mistral-7b-v0.1"), {}).parameters, 7241732096.0);
    EXPECT_NEAR(make_plan(read_model("llama-3.1-8b"), {}).flops_per_token_layer, 0.436e9, 0.0005e9);
}

TEST(PlanTest, TrainableParameters) {
    Options options;
    const Plan plain = make_plan(read_model("llama-3.1-8b"), options);
    EXPECT_EQ(plain.feature_map_parameters, 32.0 * 32 * (2 * 128 * 64 + 1));
    EXPECT_EQ(plain.lora_parameters, 32.0 * 8 * (2 * (4096 + 4096) + 2 * (4096 + 1024)));
    options.feature_map = "t2r";
    options.tie_feature_maps = true;
    options.lora_modules = {"v_proj"};
    const Plan tied = make_plan(read_model("llama-3.1-8b"), options);
    EXPECT_EQ(tied.feature_map_parameters, 32.0 * 32 * (128 * 128 + 1 + 1));
    EXPECT_EQ(tied.lora_parameters, 32.0 * 8 * (4096 + 1024));
}

TEST(PlanTest, HoursOf405B) {
    Options options = options_405b(9);
    options.plan_tokens = 20e6;
    options.plan_flops = 790e12;
    options.plan_bandwidth = 1e12;
    const BlockPlan row = chosen(make_plan(read_model("llama-3.1-405b"), options));
    EXPECT_NEAR(row.compute_hours[0] * 60, 24, 0.5);                  // minutes
    const double with_bubble = (8.0 + 13) / 8 * row.compute_hours[0]; // 8 micro-batches a batch through 14 stages
    EXPECT_DOUBLE_EQ(row.compute_hours[2], 3 * with_bubble);
    options.activation_memory = 1e12; // nothing is recomputed
    EXPECT_DOUBLE_EQ(chosen(make_plan(read_model("llama-3.1-405b"), options)).compute_hours[2], 2 * with_bubble);
    EXPECT_NEAR(row.io_hours[0] * 3600, (2 * 13 * 20e6 * 16384 + 2 * 405853388800.0) / 1e12, 1e-6);
    EXPECT_DOUBLE_EQ(row.hours[1], row.compute_hours[1] + row.io_hours[1]);
    options.plan_ranks = 28;
    const BlockPlan twice = chosen(make_plan(read_model("llama-3.1-405b"), options));
    EXPECT_EQ(twice.pipeline_ranks, 14);
    EXPECT_DOUBLE_EQ(twice.compute_hours[0], row.compute_hours[0] / 2);
}

TEST(PlanTest, AnUnevenLastBlockIsCountedAsABlock) {
    Options options;
    options.block_layers = 9;
    const Plan plan = make_plan(read_model("llama-3.1-8b"), options);
    EXPECT_EQ(chosen(plan).blocks, 4);
    EXPECT_EQ(chosen(plan).store_bytes, 2 * 20e6 * 4096 * 3);
}

TEST(PlanTest, FewerRanksThanBlocksOwnSeveral) {
    Options options = options_405b(9);
    options.plan_ranks = 7;
    const Plan plan = make_plan(read_model("llama-3.1-405b"), options);
    EXPECT_EQ(chosen(plan).layers_per_rank, 18);
    EXPECT_NEAR(chosen(plan).rank_weight_bytes, 2 * 57.4e9, 0.1e9);
    ASSERT_FALSE(plan.warnings.empty());
    EXPECT_NE(plan.warnings[0].find("no block-layers fits"), std::string::npos) << plan.warnings[0];
}

TEST(PlanTest, TooLittleMemoryNamesTheBlockThatFits) {
    const Plan plan = make_plan(read_model("llama-3.1-405b"), options_405b(0));
    ASSERT_EQ(plan.warnings.size(), 1U);
    EXPECT_EQ(chosen(plan).block_layers, 126);
    // The row of the k it names must itself fit, and one layer more must not.
    const std::size_t fitting = plan.chosen - 1;
    const int k = plan.choices.at(fitting).block_layers;
    EXPECT_NE(plan.warnings[0].find("block-layers " + std::to_string(k) + " fits"), std::string::npos)
        << plan.warnings[0];
    EXPECT_GE(k, 9);
    EXPECT_LE(plan.choices.at(fitting).largest_memory(), 80e9);
    EXPECT_GT(chosen(make_plan(read_model("llama-3.1-405b"), options_405b(k + 1))).largest_memory(), 80e9);
}

TEST(PlanTest, ShortSequencesAreWarnedOf) {
    Options options;
    options.plan_length = 128;
    const Plan plan = make_plan(read_model("llama-3.1-8b"), options);
    ASSERT_EQ(plan.warnings.size(), 1U);
    EXPECT_NE(plan.warnings[0].find("window"), std::string::npos);
}

TEST(PlanTest, ImpossibleRunsAreRefused) {
    Options options;
    options.plan_length = 8192;
    EXPECT_THROW(make_plan(read_model("mistral-7b-v0.1"), options), Error);
    options.plan_length = 1024;
    options.plan_tokens = 1000;
    EXPECT_THROW(make_plan(read_model("llama-3.1-8b"), options), Error);
    options.plan_tokens = 20e6;
    options.block_layers = 33;
    EXPECT_THROW(make_plan(read_model("llama-3.1-8b"), options), Error);
    options.block_layers = 16;
    options.plan_ranks = 4;
    options.pipeline_ranks = 3;
    EXPECT_THROW(make_plan(read_model("llama-3.1-8b"), options), Error);
}

TEST(PlanTest, TheCheckRefusesTooLittleMemoryAndTooLittleDisk) {
    Options options = options_405b(9);
    options.plan_tokens = 1e6;
    options.work = (std::filesystem::temp_directory_path() / "not" / "there" / "yet").string();
    const auto check = [&] { check_plan(make_plan(read_model("llama-3.1-405b"), options), options); };
    options.plan_memory = 60e9;
    test::expect_contains(test::message_of(check), "a rank needs");
    options.plan_memory = 80e9;
    options.plan_tokens = 1e12; // 426 PB of hidden states
    test::expect_contains(test::message_of(check), "hidden states need 4.25984e+08 GB");
    options.block_layers = 126; // joint: nothing is stored
    options.plan_memory = 1e13;
    EXPECT_NO_THROW(check());
}

TEST(PlanTest, TheCheckCountsTheTokensOfTheStore) {
    Options options;
    options.tokens = (std::filesystem::path(LOLCATS_TEST_DATA) / "golden" / "tokens_T96.h5").string();
    measure_tokens(read_model("llama-3.1-8b"), options);
    EXPECT_EQ(options.plan_length, 96);
    EXPECT_EQ(std::fmod(options.plan_tokens, 96), 0);
    EXPECT_GT(options.plan_tokens, 0);
    options.sequences = 1;
    measure_tokens(read_model("llama-3.1-8b"), options);
    EXPECT_EQ(options.plan_tokens, 96);
    options.tokens.clear();
    EXPECT_THROW(measure_tokens(read_model("llama-3.1-8b"), options), Error);
}

TEST(PlanTest, TextShowsTheFigures) {
    const Plan plan = make_plan(read_model("llama-3.1-405b"), options_405b(9));
    const std::string text = to_text(plan);
    for (const char* part : {"22.938 TB", "57.4 GB", "6.38 GFLOP", "206.44", "405.853 G"}) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
    }
}

/// A fourth pass, and the teacher's activations, beside the three passes of the adapted model.
TEST(PlanTest, ATeacherBesideStage2IsCounted) {
    Options options = options_405b(9);
    const Plan without = make_plan(read_model("llama-3.1-405b"), options);
    options.kl_factor = 1;
    const Plan with = make_plan(read_model("llama-3.1-405b"), options);
    EXPECT_DOUBLE_EQ(chosen(with).compute_hours[2], 4.0 / 3 * chosen(without).compute_hours[2]);
    EXPECT_GT(chosen(with).memory[2], chosen(without).memory[2]);
    EXPECT_DOUBLE_EQ(chosen(with).memory[1], chosen(without).memory[1]);
}

} // namespace
} // namespace lolcats
