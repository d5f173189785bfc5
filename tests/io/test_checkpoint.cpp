#include "io/checkpoint.hpp"

#include <cmath>
#include <vector>

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

/// Two shards of one tensor each, with index and configuration.
void write_sharded(const std::filesystem::path& directory) {
    const float a[] = {1, 2}, b[] = {3, 4};
    write_safetensors(directory / "model-00001-of-00002.safetensors", {{"layer.a", DType::f32, {2}, a}}, {});
    write_safetensors(directory / "model-00002-of-00002.safetensors", {{"layer.b", DType::f32, {2, 1}, b}}, {});
    write_bytes(directory / "config.json", "{}");
    write_bytes(directory / "model.safetensors.index.json",
                R"({"metadata":{"total_size":16},"weight_map":{"layer.a":"model-00001-of-00002.safetensors",)"
                R"("layer.b":"model-00002-of-00002.safetensors"}})");
}

void write_index(const std::filesystem::path& directory, const std::string& text) {
    write_bytes(directory / "model.safetensors.index.json", text);
}

TEST(Checkpoint, SingleFileOfTheGoldenModel) {
    const Checkpoint checkpoint(std::filesystem::path(LOLCATS_TEST_DATA) / "golden" / "model");
    EXPECT_TRUE(checkpoint.contains("model.embed_tokens.weight"));
    EXPECT_FALSE(checkpoint.contains("model.embed_tokens.weights"));
    std::vector<float> whole(128 * 64), rows(2 * 64);
    checkpoint.read("model.embed_tokens.weight", {128, 64}, whole.data());
    checkpoint.read_rows("model.embed_tokens.weight", {128, 64}, 5, 2, rows.data());
    double sum = 0;
    for (const float x : whole) sum += std::fabs(x);
    EXPECT_GT(sum, 1);
    for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], whole[5 * 64 + i]);
    expect_contains(message_of([&] {
                        checkpoint.read("model.embed_token.weight", {128, 64}, whole.data());
                    }),
                    "model.embed_tokens.weight");
    EXPECT_EQ(checkpoint.identity().size(), 16U);
}

TEST(Checkpoint, ShardsAreFoundAndOpenedOnlyWhenRead) {
    const ScratchDirectory scratch;
    write_sharded(scratch.path());
    write_bytes(scratch / "model-00002-of-00002.safetensors", "broken");
    const Checkpoint checkpoint(scratch.path());
    EXPECT_TRUE(checkpoint.contains("layer.b"));
    float out[2] = {};
    checkpoint.read("layer.a", {2}, out);
    EXPECT_EQ(out[1], 2);
    expect_contains(message_of([&] { checkpoint.read("layer.b", {2, 1}, out); }), "model-00002-of-00002.safetensors");
    const auto missing = message_of([&] { checkpoint.read("layer.c", {2}, out); });
    expect_contains(missing, "index.json: has no tensor layer.c");
}

TEST(Checkpoint, TensorMissingFromItsShardIsNamed) {
    const ScratchDirectory scratch;
    write_sharded(scratch.path());
    write_index(scratch.path(), R"({"weight_map":{"layer.z":"model-00001-of-00002.safetensors"}})");
    float out[2] = {};
    const auto message = message_of([&] { Checkpoint(scratch.path()).read("layer.z", {2}, out); });
    expect_contains(message, "model-00001-of-00002.safetensors: has no tensor layer.z");
    expect_contains(message, "\"layer.a\"");
}

TEST(Checkpoint, IdentityFollowsConfigurationAndIndex) {
    const ScratchDirectory scratch;
    write_sharded(scratch.path());
    const std::string identity = Checkpoint(scratch.path()).identity();
    EXPECT_EQ(Checkpoint(scratch.path()).identity(), identity);
    write_bytes(scratch / "config.json", "{\"a\":1}");
    EXPECT_NE(Checkpoint(scratch.path()).identity(), identity);
    write_bytes(scratch / "config.json", "{}");
    EXPECT_EQ(Checkpoint(scratch.path()).identity(), identity);
    write_index(scratch.path(), R"({"weight_map":{"layer.a":"model-00001-of-00002.safetensors"}})");
    EXPECT_NE(Checkpoint(scratch.path()).identity(), identity);
    std::filesystem::remove(scratch / "config.json");
    expect_contains(message_of([&] { static_cast<void>(Checkpoint(scratch.path()).identity()); }), "config.json");
}

TEST(Checkpoint, ShardsCannotLieElsewhere) {
    const ScratchDirectory scratch;
    write_sharded(scratch.path());
    for (const std::string shard : {"../x.safetensors", "/etc/passwd", "..", "", "a/b", "a\\u0000b"}) {
        write_index(scratch.path(), R"({"weight_map":{"t":")" + shard + "\"}}");
        expect_contains(message_of([&] { const Checkpoint checkpoint(scratch.path()); }), "not a plain file name");
    }
}

TEST(Checkpoint, BrokenIndexIsNamed) {
    const ScratchDirectory scratch;
    write_sharded(scratch.path());
    std::string deep = "{\"weight_map\":";
    for (int i = 0; i < 100000; ++i) deep += "[";
    for (const std::string& text :
         {std::string("{"), std::string("[]"), std::string("{}"), std::string(R"({"weight_map":{}})"),
          std::string(R"({"weight_map":{"a":1}})"), std::string(R"({"weight_map":3})"), std::string(), deep}) {
        write_index(scratch.path(), text);
        expect_contains(message_of([&] { const Checkpoint checkpoint(scratch.path()); }), "index.json: ");
    }
}

TEST(Checkpoint, OtherDirectoriesSayWhatTheyAre) {
    const ScratchDirectory scratch;
    expect_contains(message_of([&] { const Checkpoint c(scratch / "absent"); }), "not a directory");
    expect_contains(message_of([&] { const Checkpoint c(scratch.path()); }), "neither model.safetensors nor");
    write_bytes(scratch / "pytorch_model-00001-of-00002.bin", "x");
    const auto message = message_of([&] { const Checkpoint c(scratch.path()); });
    expect_contains(message, "only pytorch_model.bin");
    expect_contains(message, "convert");
}

} // namespace
} // namespace lolcats::io
