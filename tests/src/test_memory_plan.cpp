#include "src/memory_plan.hpp"

#include <gtest/gtest.h>

namespace lolcats {
namespace {

Plan nine_layers_of_405b(Options& options) {
    options.block_layers = 9;
    options.lora_rank = 4;
    options.lora_dropout = 0.5;
    options.gemm = "bf16";
    return make_plan(read_model_config(LOLCATS_TEST_DATA "/configs/llama-3.1-405b.json"), options);
}

TEST(MemoryPlanTest, NineLayersOf405BFitIn80GB) {
    Options options;
    const Plan plan = nine_layers_of_405b(options);
    const RankMemory transfer = transfer_memory(plan, options, 9, 1);
    EXPECT_NEAR(transfer.weights, 57.4e9, 0.05e9);
    EXPECT_EQ(transfer.trained, 9.0 * 128 * (2 * 128 * 64 + 1) * 20);
    EXPECT_EQ(transfer.stream, 1024.0 * 16384 * 4);
    EXPECT_EQ(transfer.products, 1024.0 * 53248 * 2);
    EXPECT_LT(transfer.total(), 60e9);
    const RankMemory lora = lora_memory(plan, options, 9, 14);
    EXPECT_EQ(lora.kept, 14 * 10 * transfer.stream);
    EXPECT_EQ(lora.trained, 9.0 * 4 * (2 * (16384 + 16384) + 2 * (16384 + 1024)) * 20);
    EXPECT_LT(lora.total(), 72e9);
}

TEST(MemoryPlanTest, ActivationsAreKeptWithinWhatTheyMayTake) {
    Options options;
    const Plan plan = nine_layers_of_405b(options);
    const double kept = 4 * 1024 * (2.0 * 16384 + 2 * 16384 + 2 * 1024 + 128 + 2 * 53248); // of a layer and micro-batch
    options.activation_memory = 2 * kept * 14;
    EXPECT_EQ(layers_kept(plan, options, 9, 14), 2);
    EXPECT_EQ(lora_memory(plan, options, 9, 14).kept, 14 * (10 * 1024.0 * 16384 * 4 + 2 * kept));
    options.activation_memory = 2 * kept * 14 - 1;
    EXPECT_EQ(layers_kept(plan, options, 9, 14), 1);
    EXPECT_EQ(layers_recomputed(plan, options, 9, 14), 8);
    options.activation_memory = 1e15;
    EXPECT_EQ(layers_kept(plan, options, 9, 14), 9);
    EXPECT_EQ(layers_kept(plan, options, 9, 1), 8) << "the last layer's are there without";
    EXPECT_EQ(layers_recomputed(plan, options, 9, 1), 0);
    options.activation_memory = 0;
    EXPECT_EQ(layers_kept(plan, options, 9, 14), 0);
    EXPECT_EQ(layers_recomputed(plan, options, 9, 1), 8);
}

TEST(MemoryPlanTest, MessagesAreOfTheTypeThatTheStreamIsRoundedTo) {
    Options options;
    const Plan plan = nine_layers_of_405b(options);
    const double numbers = 1024.0 * 16384;
    EXPECT_EQ(residual_link_memory(plan, options, {}), 0);
    EXPECT_EQ(residual_link_memory(plan, options, {.before = true}), 2 * numbers) << "before it is widened";
    EXPECT_EQ(residual_link_memory(plan, options, {.after = true}), 4 * 2 * numbers);
    EXPECT_EQ(teacher_memory(plan, options, 9, {.before = true, .after = true}).stream, (4 + 5 * 2) * numbers);
    options.dtype = "f32";
    EXPECT_EQ(residual_link_memory(plan, options, {.before = true, .after = true}), 4 * 4 * numbers);
}

TEST(MemoryPlanTest, BlocksHaveWorkArraysOfTheirOwn) {
    Options options;
    const Plan plan = nine_layers_of_405b(options);
    const RankMemory one = transfer_memory(plan, options, 9, 1);
    const RankMemory three = transfer_memory(plan, options, 9, 3);
    EXPECT_EQ(three.work, 3 * one.work);
    EXPECT_EQ(three.products, 3 * one.products);
    EXPECT_EQ(three.weights, one.weights);
    options.micro_batch = 4;
    const RankMemory wide = transfer_memory(plan, options, 9, 1);
    EXPECT_EQ(wide.work, 4 * one.work);
    EXPECT_EQ(wide.stream, 4 * one.stream);
}

} // namespace
} // namespace lolcats
