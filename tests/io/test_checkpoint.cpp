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

std::string identity_of(const Checkpoint& checkpoint) {
    std::vector<std::int64_t> fingerprints;
    for (const auto& name : checkpoint.names())
        fingerprints.push_back(static_cast<std::int64_t>(checkpoint.fingerprint(name)));
    return checkpoint.identity(fingerprints);
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
    EXPECT_EQ(identity_of(checkpoint).size(), 16U);
    EXPECT_EQ(checkpoint.names().back(), "model.norm.weight");
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

TEST(Checkpoint, IdentityFollowsConfigurationNamesAndValues) {
    const ScratchDirectory scratch;
    write_sharded(scratch.path());
    const std::string identity = identity_of(Checkpoint(scratch.path()));
    EXPECT_EQ(identity_of(Checkpoint(scratch.path())), identity);
    write_bytes(scratch / "config.json", "{\"a\":1}");
    EXPECT_NE(identity_of(Checkpoint(scratch.path())), identity);
    write_bytes(scratch / "config.json", "{}");
    EXPECT_EQ(identity_of(Checkpoint(scratch.path())), identity);
    const float b[] = {3, 4.5};
    write_safetensors(scratch / "model-00002-of-00002.safetensors", {{"layer.b", DType::f32, {2, 1}, b}}, {});
    EXPECT_NE(identity_of(Checkpoint(scratch.path())), identity);
    write_sharded(scratch.path());
    write_index(scratch.path(), R"({"weight_map":{"layer.a":"model-00001-of-00002.safetensors"}})");
    EXPECT_NE(identity_of(Checkpoint(scratch.path())), identity);
    std::filesystem::remove(scratch / "config.json");
    expect_contains(message_of([&] { static_cast<void>(identity_of(Checkpoint(scratch.path()))); }), "config.json");
}

TEST(Checkpoint, IdentityIsThatOfTheModelHoweverItIsSharded) {
    const ScratchDirectory sharded, single;
    write_sharded(sharded.path());
    const float a[] = {1, 2}, b[] = {3, 4};
    write_safetensors(single / "model.safetensors",
                      {{"layer.b", DType::f32, {2, 1}, b}, {"layer.a", DType::f32, {2}, a}}, {{"format", "pt"}});
    write_bytes(single / "config.json", "{}");
    EXPECT_EQ(identity_of(Checkpoint(single.path())), identity_of(Checkpoint(sharded.path())));
}

/// A fine-tuning changes nearly all values; of a large tensor its fingerprint sees some pages.
TEST(Checkpoint, FingerprintsAreOfAllOfSmallTensorsAndPagesOfLargeOnes) {
    const ScratchDirectory scratch;
    constexpr std::int64_t small = 1 << 14, large = 1 << 20; // 64 KiB and 4 MiB
    const auto fingerprint = [&](const std::vector<float>& values) {
        const auto path = scratch / "a.safetensors";
        write_safetensors(path, {{"a", DType::f32, {static_cast<std::int64_t>(values.size())}, values.data()}}, {});
        return SafetensorsFile(path).fingerprint("a");
    };
    for (const std::int64_t size : {small, large}) {
        const std::vector<float> values(static_cast<std::size_t>(size), 1.5F);
        const auto expected = fingerprint(values);
        const auto with = [&](std::size_t place) {
            auto changed = values;
            changed[place] = 1.25F;
            return fingerprint(changed);
        };
        EXPECT_NE(with(0), expected);
        EXPECT_NE(with(values.size() - 1), expected);
        EXPECT_EQ(with(5000) == expected, size == large); // between two pages of the large one
        EXPECT_NE(fingerprint(std::vector<float>(values.size(), 1.5000001F)), expected);
    }
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
