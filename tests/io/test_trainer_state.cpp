/// Checkpoints: what is written comes back, damage is named, and the newest are kept. Each rank works alone.
#include "io/trainer_state.hpp"

#include <cmath>
#include <limits>

#include "io/file.hpp"
#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

const TrainingIdentity identity{"model", "tokens", R"({"lr":0.1,"steps":5})", "deck"};
const std::vector<float> values{0.1F, -2, std::numeric_limits<float>::denorm_min(), 3e38F};

/// A checkpoint of two parts.
void save(const CheckpointDirectory& directory, std::int64_t step, int keep = 2) {
    const auto aside = directory.begin(step);
    const ProgressNumbers numbers{{"step", static_cast<double>(step)},
                                  {"best_loss", std::numeric_limits<double>::infinity()},
                                  {"third", 1.0 / 3}};
    write_state_part(aside / "block_00.h5", step, identity,
                     {{"parameters", "layers.0.a", {2, 2}, values}, {"first_moments", "layers.0.a", {2, 2}, values}},
                     numbers);
    write_state_part(aside / "block_01.h5", step, identity, {{"parameters", "layers.1.a", {4}, values}}, {});
    directory.publish(aside, step, keep);
}

TEST(TrainerState, RoundTripOverParts) {
    const ScratchDirectory scratch;
    const CheckpointDirectory directory(scratch / "state");
    EXPECT_TRUE(directory.steps().empty());
    save(directory, 120);
    ASSERT_EQ(directory.steps(), std::vector<std::int64_t>{120});
    const StateReader reader(directory.parts(120));
    EXPECT_EQ(difference(reader.identity(), identity), "");
    EXPECT_EQ(reader.identity().run_deck, "deck");
    EXPECT_EQ(reader.numbers().at("third"), 1.0 / 3);
    EXPECT_TRUE(std::isinf(reader.numbers().at("best_loss")));
    EXPECT_EQ(reader.read("first_moments", "layers.0.a", {2, 2}), values);
    EXPECT_EQ(reader.read("parameters", "layers.1.a", {4}), values);
    EXPECT_FALSE(reader.has("best_parameters", "layers.0.a"));
    expect_contains(message_of([&] {
                        static_cast<void>(reader.read("parameters", "layers.1.a", {2, 2}));
                    }),
                    "has shape [4]");
    expect_contains(message_of([&] { static_cast<void>(reader.read("parameters", "layers.2.a", {4})); }),
                    "has no parameters/layers.2.a");
    EXPECT_FALSE(has_temporaries(directory.path()));
}

TEST(TrainerState, EqualStatesAreEqualFiles) {
    const ScratchDirectory scratch;
    const CheckpointDirectory a(scratch / "a"), b(scratch / "b");
    save(a, 7);
    save(b, 7);
    EXPECT_EQ(read_file(a.of_step(7) / "block_00.h5"), read_file(b.of_step(7) / "block_00.h5"));
}

TEST(TrainerState, NewestAreKept) {
    const ScratchDirectory scratch;
    const CheckpointDirectory directory(scratch / "state");
    for (const std::int64_t step : {2, 4, 6, 8}) save(directory, step, 3);
    EXPECT_EQ(directory.steps(), (std::vector<std::int64_t>{8, 6, 4}));
    std::filesystem::create_directory(directory.path() / "step_00000010.tmp.a1.5"); // half-written
    EXPECT_EQ(directory.steps().front(), 8);
    save(directory, 8, 1); // once more
    EXPECT_EQ(directory.steps(), std::vector<std::int64_t>{8});
    save(directory, 6, 1); // 8 was damaged, and the run went on from before it
    EXPECT_EQ(directory.steps(), std::vector<std::int64_t>{6});
    directory.remove();
    EXPECT_FALSE(std::filesystem::exists(directory.path()));
}

TEST(TrainerState, EveryFlippedBitIsFound) {
    const ScratchDirectory scratch;
    const CheckpointDirectory directory(scratch / "state");
    save(directory, 1);
    const auto file = directory.of_step(1) / "block_01.h5";
    const std::string whole = read_file(file);
    for (std::size_t place = 0; place < whole.size(); place += 97) {
        std::string damaged = whole;
        damaged[place] ^= 1;
        write_bytes(file, damaged);
        expect_contains(message_of([&] { static_cast<void>(directory.parts(1)); }), file.string() + ": does not match");
    }
    write_bytes(file, whole.substr(0, whole.size() - 1));
    expect_contains(message_of([&] { static_cast<void>(directory.parts(1)); }), "does not match");
    std::filesystem::remove(file);
    expect_contains(message_of([&] { static_cast<void>(directory.parts(1)); }), file.string() + ": is missing");
    write_bytes(directory.of_step(1) / "complete.json", "{");
    expect_contains(message_of([&] { static_cast<void>(directory.parts(1)); }), "complete.json: is damaged");
}

TEST(TrainerState, DifferencesAreNamed) {
    auto other = identity;
    other.settings = R"({"lr":0.2,"steps":5})";
    EXPECT_EQ(difference(other, identity), "its lr is 0.2, not 0.1");
    other = identity;
    other.run_deck = "another";
    EXPECT_EQ(difference(other, identity), "");
    other.tokens = "x";
    expect_contains(difference(other, identity), "tokens are others");
    other.model = "x";
    expect_contains(difference(other, identity), "model is another");
}

TEST(AppendFile, GoesOnAfterWhatIsKept) {
    const ScratchDirectory scratch;
    write_bytes(scratch / "log", "one\ntwo\nhal");
    AppendFile stale(scratch / "log", 100);
    EXPECT_EQ(stale.size(), 11);
    {
        AppendFile file(scratch / "log", 8);
        file.append("new\n");
        file.sync();
        EXPECT_EQ(file.size(), 12);
        stale.append("of another process"); // which has the old file
    }
    EXPECT_EQ(read_file(scratch / "log"), "one\ntwo\nnew\n");
    AppendFile(scratch / "log", 0).append("x");
    EXPECT_EQ(read_file(scratch / "log"), "x");
}

} // namespace
} // namespace lolcats::io
