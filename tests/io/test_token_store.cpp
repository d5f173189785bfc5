#include "io/token_store.hpp"

#include <thread>
#include <vector>

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

/// A file with one dataset after the other, each of a native type and a shape.
class TokenFile {
public:
    explicit TokenFile(const std::filesystem::path& path) : path_(path) {
        const auto lock = hdf5::lock_library();
        file_ = hdf5::File(
            hdf5::check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), path, "create it"));
    }
    TokenFile& add(const char* name, const Shape& shape, hid_t stored, hid_t native, const void* values) {
        const auto dataset = create(name, shape, stored);
        hdf5::check(H5Dwrite(dataset.get(), native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), path_, "write");
        return *this;
    }
    TokenFile& add(const char* name, const Shape& shape, const std::vector<std::int32_t>& values,
                   hid_t stored = H5T_STD_I32LE) {
        return add(name, shape, stored, H5T_NATIVE_INT32, values.data());
    }
    /// Nothing is written, and the file has no room for it.
    void declare(const char* name, const Shape& shape) { create(name, shape, H5T_STD_I32LE); }

private:
    hdf5::Dataset create(const char* name, const Shape& shape, hid_t stored) {
        const auto space = hdf5::make_dataspace(shape);
        return hdf5::Dataset(
            hdf5::check(H5Dcreate2(file_.get(), name, stored, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                        path_, "create"));
    }

    std::filesystem::path path_;
    hdf5::File file_;
};

const std::vector<std::int32_t> six = {0, 1, 2, 3, 4, 5};

std::vector<std::int32_t> tokens_of(const TokenStore& store, std::int64_t sequence) {
    std::vector<std::int32_t> out(static_cast<std::size_t>(store.length()));
    store.read_tokens(sequence, out.data());
    return out;
}

std::vector<std::int32_t> labels_of(const TokenStore& store, std::int64_t sequence) {
    std::vector<std::int32_t> out(static_cast<std::size_t>(store.length()));
    store.read_labels(sequence, out.data());
    return out;
}

TEST(TokenStore, TokensAndLabels) {
    const ScratchDirectory scratch;
    TokenFile(scratch / "t.h5").add("tokens", {2, 3}, six).add("labels", {2, 3}, {-100, 1, 2, 3, -100, 5});
    const TokenStore store(scratch / "t.h5", 6);
    EXPECT_EQ(store.sequences(), 2);
    EXPECT_EQ(store.length(), 3);
    EXPECT_TRUE(store.has_labels());
    EXPECT_EQ(tokens_of(store, 1), (std::vector<std::int32_t>{3, 4, 5}));
    EXPECT_EQ(labels_of(store, 0), (std::vector<std::int32_t>{-100, 1, 2}));
}

TEST(TokenStore, SequencesAreCountedByAnInt) {
    const ScratchDirectory scratch;
    constexpr std::int64_t many = std::int64_t{1} << 31;
    TokenFile(scratch / "t.h5").declare("tokens", {many, 1});
    expect_contains(message_of([&] { const TokenStore store(scratch / "t.h5", 6); }), "t.h5: 2147483648 sequences");
    EXPECT_EQ(TokenStore(scratch / "t.h5", 6, many - 1).sequences(), many - 1);
}

TEST(TokenStore, TokensAreTheirOwnLabels) {
    const ScratchDirectory scratch;
    TokenFile(scratch / "t.h5").add("tokens", {2, 3}, six);
    const TokenStore store(scratch / "t.h5", 6);
    EXPECT_FALSE(store.has_labels());
    EXPECT_EQ(labels_of(store, 1), tokens_of(store, 1));
}

TEST(TokenStore, DistancesAreOptional) {
    const ScratchDirectory scratch;
    TokenFile(scratch / "t.h5").add("tokens", {2, 3}, six);
    EXPECT_FALSE(TokenStore(scratch / "t.h5", 6).has_distances());
    TokenFile(scratch / "d.h5").add("tokens", {2, 3}, six).add("distances", {2, 3}, {0, 0, 2, 0, 2, 0});
    const TokenStore store(scratch / "d.h5", 6);
    ASSERT_TRUE(store.has_distances());
    std::vector<std::int32_t> out(3);
    store.read_distances(0, out.data());
    EXPECT_EQ(out, (std::vector<std::int32_t>{0, 0, 2}));
    expect_contains(message_of([&] { store.read_distances(1, out.data()); }),
                    "d.h5: sequence 1, position 1 holds distance 2");
    TokenFile(scratch / "s.h5").add("tokens", {2, 3}, six).add("distances", {3, 2}, six);
    expect_contains(message_of([&] { TokenStore(scratch / "s.h5", 6); }), "s.h5: /distances has shape");
}

TEST(TokenStore, GoldenTokens) {
    const TokenStore store(std::filesystem::path(LOLCATS_TEST_DATA) / "golden" / "tokens_T71.h5", 128);
    EXPECT_EQ(store.sequences(), 3);
    EXPECT_EQ(store.length(), 71);
    for (std::int64_t s = 0; s < 3; ++s) EXPECT_EQ(tokens_of(store, s).size(), 71U);
}

TEST(TokenStore, OtherIntegerTypesAreConverted) {
    const ScratchDirectory scratch;
    for (const hid_t type : {H5T_STD_I64LE, H5T_STD_U16LE, H5T_STD_U8LE, H5T_STD_I32BE}) {
        TokenFile(scratch / "t.h5").add("tokens", {2, 3}, six, type);
        EXPECT_EQ(tokens_of(TokenStore(scratch / "t.h5", 6), 1), (std::vector<std::int32_t>{3, 4, 5}));
    }
    const std::vector<std::int64_t> wide = {0, std::int64_t{1} << 32, 0, 0, 0, 0};
    TokenFile(scratch / "t.h5").add("tokens", {2, 3}, H5T_STD_I64LE, H5T_NATIVE_INT64, wide.data());
    const TokenStore store(scratch / "t.h5", 6);
    expect_contains(message_of([&] { tokens_of(store, 0); }), "position 1"); // must not wrap round to token 0
}

TEST(TokenStore, LimitHidesTheRestButNotFromTheIdentity) {
    const ScratchDirectory scratch;
    TokenFile(scratch / "t.h5").add("tokens", {2, 3}, six);
    const TokenStore store(scratch / "t.h5", 6, 1);
    EXPECT_EQ(store.sequences(), 1);
    expect_contains(message_of([&] { tokens_of(store, 1); }), "sequence 1");
    expect_contains(message_of([&] { labels_of(store, -1); }), "sequence -1");
    EXPECT_EQ(store.identity(), TokenStore(scratch / "t.h5", 6).identity());
    expect_contains(message_of([&] { const TokenStore all(scratch / "t.h5", 6, 3); }), "it holds 2");
}

TEST(TokenStore, IdentityFollowsShapeAndTokens) {
    const ScratchDirectory scratch;
    const auto identity = [&](const Shape& shape, const std::vector<std::int32_t>& values, hid_t type) {
        TokenFile(scratch / "t.h5").add("tokens", shape, values, type);
        return TokenStore(scratch / "t.h5", 6).identity();
    };
    const std::string first = identity({2, 3}, six, H5T_STD_I32LE);
    EXPECT_EQ(first.size(), 16U);
    EXPECT_EQ(identity({2, 3}, six, H5T_STD_I64LE), first);
    EXPECT_NE(identity({3, 2}, six, H5T_STD_I32LE), first);
    EXPECT_NE(identity({2, 3}, {0, 1, 2, 3, 4, 4}, H5T_STD_I32LE), first);
    // Long enough for several batches; the last token of all must count.
    std::vector<std::int32_t> many(3000 * 1000, 1);
    const std::string long_one = identity({3000, 1000}, many, H5T_STD_I32LE);
    many.back() = 2;
    EXPECT_NE(identity({3000, 1000}, many, H5T_STD_I32LE), long_one);
}

TEST(TokenStore, ValuesOutsideTheVocabularyAreNamed) {
    const ScratchDirectory scratch;
    TokenFile(scratch / "t.h5").add("tokens", {2, 3}, {0, 1, 2, 3, 6, 5}).add("labels", {2, 3}, {0, 1, -1, -100, 4, 6});
    const TokenStore store(scratch / "t.h5", 6);
    const auto token = message_of([&] { tokens_of(store, 1); });
    expect_contains(token, (scratch / "t.h5").string());
    expect_contains(token, "sequence 1, position 1 holds token 6");
    expect_contains(token, "vocabulary of 6");
    expect_contains(message_of([&] { labels_of(store, 0); }), "position 2 holds label -1");
    expect_contains(message_of([&] { labels_of(store, 1); }), "position 2 holds label 6");
    TokenFile(scratch / "n.h5").add("tokens", {1, 2}, {0, -100});
    const TokenStore negative(scratch / "n.h5", 6);
    expect_contains(message_of([&] { tokens_of(negative, 0); }), "token -100");
}

TEST(TokenStore, LabelsInUseAreCheckedAndCounted) {
    const ScratchDirectory scratch;
    const std::vector<std::int32_t> tokens = {0, 1, 2, 3, 4, 5, 0, 1, 2};
    const auto labels = [&](const std::vector<std::int32_t>& values, int vocab_size, std::int64_t limit) {
        TokenFile(scratch / "t.h5").add("tokens", {3, 3}, tokens).add("labels", {3, 3}, values);
        return TokenStore(scratch / "t.h5", vocab_size, limit).labels();
    };
    const std::vector<std::int32_t> stored = {-100, 1, 2, 3, -100, -100, 0, 1, 6};
    const LabelSummary two = labels(stored, 6, 2);
    EXPECT_EQ(two.counts, (std::vector<std::int32_t>{2, 0})) << "nothing predicts the first token of a sequence";
    expect_contains(message_of([&] { labels(stored, 6, 0); }), "t.h5: sequence 2, position 2 holds label 6");
    const LabelSummary all = labels(stored, 7, 0);
    EXPECT_EQ(all.counts, (std::vector<std::int32_t>{2, 0, 2}));
    EXPECT_EQ(all.identity, two.identity);
    EXPECT_NE(labels({-100, 1, 2, 3, -100, -100, 0, 1, 5}, 7, 0).identity, all.identity);
    TokenFile(scratch / "t.h5").add("tokens", {3, 3}, tokens);
    const LabelSummary own = TokenStore(scratch / "t.h5", 6).labels();
    EXPECT_EQ(own.identity, "tokens");
    EXPECT_EQ(own.counts, (std::vector<std::int32_t>{2, 2, 2}));
}

TEST(TokenStore, WrongFilesAreRefused) {
    const ScratchDirectory scratch;
    const auto path = scratch / "t.h5";
    const auto refusal = [&] { return message_of([&] { const TokenStore store(path, 6); }); };
    expect_contains(refusal(), "no such file");
    write_bytes(path, "text");
    expect_contains(refusal(), "not an HDF5 file");
    TokenFile(path).add("token", {2, 3}, six);
    expect_contains(refusal(), "no dataset /tokens");
    TokenFile(path).add("tokens", {6}, six);
    expect_contains(refusal(), "shape [6]");
    TokenFile(path).add("tokens", {2, 3, 1}, six);
    expect_contains(refusal(), "shape [2, 3, 1]");
    TokenFile(path).add("tokens", {0, 3}, six);
    expect_contains(refusal(), "shape [0, 3]");
    TokenFile(path).add("tokens", {}, six);
    expect_contains(refusal(), "shape []");
    TokenFile(path).add("tokens", {2, 3}, six, H5T_IEEE_F32LE);
    expect_contains(refusal(), "integers");
    TokenFile(path).add("tokens", {2, 3}, six).add("labels", {3, 2}, six);
    expect_contains(refusal(), "/labels has shape [3, 2]");
    TokenFile(path).add("tokens", {2, 3}, six).add("labels", {2, 3}, six, H5T_IEEE_F32LE);
    expect_contains(refusal(), "/labels does not hold integers");
}

TEST(TokenStore, ThreadsReadAtOnce) {
    const ScratchDirectory scratch;
    std::vector<std::int32_t> values(200 * 10);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i);
    TokenFile(scratch / "t.h5").add("tokens", {200, 10}, values);
    const TokenStore store(scratch / "t.h5", 2000);
    std::vector<std::int32_t> out(values.size());
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int s = t; s < 200; s += 4) store.read_tokens(s, out.data() + s * 10);
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(out, values);
}

} // namespace
} // namespace lolcats::io
