#include "lolcats/stream_plan.hpp"

#include <gtest/gtest.h>

#include <filesystem>

namespace lolcats {
namespace {

ModelConfig model_405b() {
    const auto data = std::filesystem::path(LOLCATS_TEST_DATA) / "configs";
    return read_model_config(data / "llama-3.1-405b.json");
}

StreamPlan streaming(const Options& options) {
    return plan_streaming(make_plan(model_405b(), options), options);
}

Options nine_layers_a_rank() {
    Options options;
    options.block_layers = 9;
    options.plan_length = 1000; // of 20e6 tokens: 20,000 sequences, 2,500 batches of 8
    return options;
}

TEST(StreamPlanTest, OnePipelineOf405B) {
    const StreamPlan plan = streaming(nine_layers_a_rank());
    EXPECT_EQ(plan.pipeline_ranks, 14);
    EXPECT_EQ(plan.data_ranks, 1);
    EXPECT_EQ(plan.micro_batches, 20000);
    EXPECT_DOUBLE_EQ(plan.bubble, 13.0 / 20013);
    EXPECT_DOUBLE_EQ(plan.bytes_between_stages, 2.0 * 20e6 * 16384 * 13);
    EXPECT_GT(plan.memory, 57.4e9); // the weights alone
    EXPECT_LT(plan.memory, 80e9);
    EXPECT_NEAR(plan.hours, plan.load_hours + (plan.compute_hours + plan.link_hours) * 20013 / 20000, 1e-9);
}

TEST(StreamPlanTest, TheStreamOfF32WeightsIsNotRounded) {
    Options options = nine_layers_a_rank();
    const StreamPlan rounded = streaming(options);
    options.dtype = "f32";
    const StreamPlan plan = streaming(options);
    EXPECT_DOUBLE_EQ(plan.bytes_between_stages, 2 * rounded.bytes_between_stages);
    EXPECT_DOUBLE_EQ(plan.link_hours, 2 * rounded.link_hours);
}

TEST(StreamPlanTest, DataRanksShareABatch) {
    Options options = nine_layers_a_rank();
    const StreamPlan one = streaming(options);
    options.plan_ranks = 14 * 8;
    const StreamPlan eight = streaming(options);
    EXPECT_EQ(eight.micro_batches, one.micro_batches / 8);
    EXPECT_DOUBLE_EQ(eight.bytes_between_stages, one.bytes_between_stages);
    EXPECT_DOUBLE_EQ(eight.load_hours, one.load_hours);
    options.weights = "read";
    EXPECT_DOUBLE_EQ(streaming(options).load_hours, 8 * one.load_hours);
    EXPECT_DOUBLE_EQ(eight.compute_hours, one.compute_hours / 8);
    options.plan_ranks = 14 * 16; // half of them get nothing of a batch of 8
    EXPECT_EQ(streaming(options).micro_batches, eight.micro_batches);
    options.plan_ranks = 14 * 3; // 3, 3 and 2 sequences: the largest share counts
    EXPECT_EQ(streaming(options).micro_batches, 2500 * 3);
}

TEST(StreamPlanTest, OneRankSendsNothing) {
    Options options;
    options.plan_ranks = 1;
    const StreamPlan plan = streaming(options);
    EXPECT_EQ(plan.bytes_between_stages, 0);
    EXPECT_EQ(plan.bubble, 0);
    EXPECT_EQ(plan.link_hours, 0);
}

TEST(StreamPlanTest, MemoryGrowsWithLayersAndMicroBatches) {
    Options options = nine_layers_a_rank();
    const double one = streaming(options).memory;
    options.micro_batch = 4;
    const double four = streaming(options).memory;
    EXPECT_GT(four, one);
    options.plan_ranks = 7;
    EXPECT_GT(streaming(options).memory, four + 57e9);
}

TEST(StreamPlanTest, ValidationKeepsOneMoreCopyOfTheMaps) {
    Options options = nine_layers_a_rank();
    options.validation = 0;
    const double without = streaming(options).memory;
    options.validation = 8;
    EXPECT_EQ(streaming(options).memory - without, 9 * layer_map_parameters(model_405b(), options) * 4);
}

} // namespace
} // namespace lolcats
