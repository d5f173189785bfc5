/// The hidden-state store. Tests named Ranks... are collective over all ranks; the others run on each rank alone.
#include "io/hidden_store.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <thread>

#include "io/array_file.hpp"
#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

HiddenStoreInfo small_info(DType dtype = DType::bf16) {
    HiddenStoreInfo info{5, 6, 8, dtype, 2, 4, "model", "tokens", "bf16", "f32", "{\"seed\":0}"};
    return info;
}

std::vector<float> states_of(const HiddenStoreInfo& info, std::int64_t sequence) {
    std::vector<float> states(static_cast<std::size_t>(info.length * info.width));
    for (std::size_t i = 0; i < states.size(); ++i) {
        // Some of these round up into the next power of two, which HDF5's own conversion gets wrong.
        states[i] =
            static_cast<float>(sequence + 1) * 65504.0F / static_cast<float>(i + 1) * (i % 2 == 0 ? 1.0F : -1.0F);
    }
    return states;
}

float rounded(float x, DType dtype) {
    return dtype == DType::bf16 ? to_float(to_bfloat16(x)) : x;
}

void expect_stored(const HiddenStoreReader& reader, std::int64_t sequence) {
    const auto expected = states_of(reader.info(), sequence);
    std::vector<float> states(expected.size(), std::nanf(""));
    reader.read(sequence, states.data());
    for (std::size_t i = 0; i < states.size(); ++i) {
        ASSERT_EQ(states[i], rounded(expected[i], reader.info().dtype)) << sequence << " " << i;
    }
}

void write_store(const std::filesystem::path& path, const HiddenStoreInfo& info) {
    HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
    for (std::int64_t s = 0; s < info.sequences; ++s) writer.write(s, states_of(info, s).data());
    writer.close();
}

std::uint64_t offset_of_sequence(const std::filesystem::path& path, std::int64_t sequence) {
    const auto file = hdf5::open_read_only(path);
    const auto dataset = hdf5::open_dataset(file, path, "/hidden_states");
    const hsize_t coordinates[] = {static_cast<hsize_t>(sequence), 0, 0};
    unsigned filters = 0;
    haddr_t address = 0;
    hsize_t bytes = 0;
    hdf5::check(H5Dget_chunk_info_by_coord(dataset.get(), coordinates, &filters, &address, &bytes), path,
                "find a chunk");
    return address;
}

void flip_byte(const std::filesystem::path& path, std::uint64_t offset) {
    std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    const int byte = stream.get();
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(stream.flush().good());
}

class HiddenStore : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, HiddenStore, ::testing::Values(DType::bf16, DType::f32),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(HiddenStore, RoundTrip) {
    const ScratchDirectory scratch;
    const auto path = scratch / "block_02.h5";
    const auto info = small_info(GetParam());
    write_store(path, info);
    const HiddenStoreInfo found = read_hidden_store_info(path);
    EXPECT_EQ(found.dtype, info.dtype);
    EXPECT_EQ(found.layer, info.layer);
    EXPECT_EQ(found.weights_dtype, info.weights_dtype);
    EXPECT_EQ(found.gemm, info.gemm);
    EXPECT_EQ(found.run_deck, info.run_deck);
    const HiddenStoreReader reader(path, info);
    for (std::int64_t s = 0; s < info.sequences; ++s) expect_stored(reader, s);
    expect_contains(message_of([&] { static_cast<void>(reader.checksum(5)); }), "sequence 5");
}

TEST_P(HiddenStore, OtherProgramsSeeNumbers) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const auto info = small_info(GetParam());
    write_store(path, info);
    Shape shape;
    const auto values = read_array(path, "/hidden_states", &shape);
    EXPECT_EQ(shape, (Shape{5, 6, 8}));
    for (std::int64_t s = 0; s < info.sequences; ++s) {
        const auto expected = states_of(info, s);
        for (std::size_t i = 0; i < expected.size(); ++i) {
            ASSERT_EQ(values[static_cast<std::size_t>(s) * expected.size() + i], rounded(expected[i], info.dtype));
        }
    }
}

TEST_P(HiddenStore, ChangedByteIsFound) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const auto info = small_info(GetParam());
    write_store(path, info);
    flip_byte(path, offset_of_sequence(path, 3) + 17);
    const HiddenStoreReader reader(path, info);
    std::vector<float> out(48);
    const auto message = message_of([&] { reader.read(3, out.data()); });
    expect_contains(message, path.string());
    expect_contains(message, "sequence 3");
    expect_contains(message, "checksum");
    expect_stored(reader, 2);
    expect_stored(reader, 4);
}

TEST_P(HiddenStore, ValuesThatAreNotFiniteAreRefused) {
    const ScratchDirectory scratch;
    const auto info = small_info(GetParam());
    HiddenStoreWriter writer(scratch / "a.h5", info, MPI_COMM_SELF);
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        auto states = states_of(info, 1);
        states.back() = bad;
        const auto message = message_of([&] { writer.write(1, states.data()); });
        expect_contains(message, "sequence 1");
        expect_contains(message, "not finite");
        EXPECT_FALSE(writer.is_done(1));
    }
    auto states = states_of(info, 1);
    states[0] = std::numeric_limits<float>::max(); // finite as f32, beyond the largest bfloat16
    if (GetParam() == DType::bf16) {
        expect_contains(message_of([&] { writer.write(1, states.data()); }), "not finite as BF16");
    } else {
        writer.write(1, states.data());
    }
    EXPECT_EQ(writer.is_done(1), GetParam() == DType::f32);
    writer.close();
}

TEST(HiddenStoreResume, DoneMarksSurviveAndTheRestIsWritten) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    auto info = small_info();
    {
        HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
        for (const std::int64_t s : {0, 3}) writer.write(s, states_of(info, s).data());
        EXPECT_TRUE(writer.is_done(3));
        EXPECT_FALSE(writer.is_done(1));
        writer.close();
        expect_contains(message_of([&] { writer.write(1, states_of(info, 1).data()); }), "already closed");
        expect_contains(message_of([&] { writer.close(); }), "already closed");
    }
    const auto partial = message_of([&] { const HiddenStoreReader reader(path, info); });
    expect_contains(partial, "2 of 5 sequences are stored");
    expect_contains(partial, "lolcats_hidden");
    info.run_deck = "another run"; // no part of the identity
    HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
    for (std::int64_t s = 0; s < info.sequences; ++s) {
        EXPECT_EQ(writer.is_done(s), s == 0 || s == 3) << s;
        if (!writer.is_done(s)) writer.write(s, states_of(info, s).data());
    }
    writer.close();
    const HiddenStoreReader reader(path, info);
    for (std::int64_t s = 0; s < info.sequences; ++s) expect_stored(reader, s);
}

TEST(HiddenStoreResume, OtherIdentityIsNeitherReplacedNorRead) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const auto info = small_info();
    const std::vector<std::pair<std::string, void (*)(HiddenStoreInfo&)>> changes = {
        {"number of sequences is 5, not 4", [](HiddenStoreInfo& i) { i.sequences = 4; }},
        {"sequence length is 6, not 7", [](HiddenStoreInfo& i) { i.length = 7; }},
        {"width is 8, not 9", [](HiddenStoreInfo& i) { i.width = 9; }},
        {"element type is BF16, not F32", [](HiddenStoreInfo& i) { i.dtype = DType::f32; }},
        {"dtype of weights is bf16, not fp8", [](HiddenStoreInfo& i) { i.weights_dtype = "fp8"; }}, // both store BF16
        {"gemm is f32, not exact", [](HiddenStoreInfo& i) { i.gemm = "exact"; }},
        {"block is 2, not 3", [](HiddenStoreInfo& i) { i.block = 3; }},
        {"layer is 4, not 5", [](HiddenStoreInfo& i) { i.layer = 5; }},
        {"model is another one (identity model, not other)", [](HiddenStoreInfo& i) { i.model_identity = "other"; }},
        {"token identity is tokens, not other", [](HiddenStoreInfo& i) { i.tokens_identity = "other"; }},
    };
    write_store(path, info);
    for (const auto& [text, change] : changes) {
        SCOPED_TRACE(text);
        HiddenStoreInfo other = info;
        change(other);
        const auto message = message_of([&] { const HiddenStoreReader reader(path, other); });
        expect_contains(message, path.string());
        expect_contains(message, text);
        expect_contains(message, "lolcats_hidden");
        const auto refusal = message_of([&] { const HiddenStoreWriter writer(path, other, MPI_COMM_SELF); });
        expect_contains(refusal, path.string());
        expect_contains(refusal, text);
        expect_contains(refusal, "--fresh");
    }
    const HiddenStoreReader reader(path, info);
    for (std::int64_t s = 0; s < info.sequences; ++s) expect_stored(reader, s);
}

TEST(HiddenStoreResume, OlderFormatIsNeitherReplacedNorRead) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    write_store(path, small_info());
    {
        const hdf5::File file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
        for (const char* name : {"format_version", "dtype", "gemm"}) ASSERT_GE(H5Adelete(file.get(), name), 0);
        hdf5::write_attribute(file, path, "format_version", std::int64_t{1});
    }
    const auto message = message_of([&] { const HiddenStoreReader reader(path, small_info()); });
    expect_contains(message, path.string() + ": has format version 1; this program reads 2");
    expect_contains(message, "run lolcats_hidden again");
    const auto refusal = message_of([&] { const HiddenStoreWriter writer(path, small_info(), MPI_COMM_SELF); });
    expect_contains(refusal, path.string() + ": has format version 1; this program reads 2");
    expect_contains(refusal, "--fresh");
}

TEST(HiddenStoreResume, WriterThatIsDroppedLeavesAReadableFile) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const auto info = small_info();
    std::vector<char> snapshot;
    {
        HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
        writer.write(2, states_of(info, 2).data());
        // What a kill would leave: the file as it is while the writer still has it open.
        std::filesystem::copy_file(path, scratch / "killed.h5");
    }
    for (const auto& file : {path, scratch / "killed.h5"}) {
        HiddenStoreWriter writer(file, info, MPI_COMM_SELF);
        for (std::int64_t s = 0; s < info.sequences; ++s) EXPECT_EQ(writer.is_done(s), s == 2);
        for (const std::int64_t s : {0, 1, 3, 4}) writer.write(s, states_of(info, s).data());
        writer.close();
        const HiddenStoreReader reader(file, info);
        for (std::int64_t s = 0; s < info.sequences; ++s) expect_stored(reader, s);
    }
}

TEST(HiddenStoreResume, FilesThatAreNoStoreAreRefused) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const auto info = small_info();
    expect_contains(message_of([&] { const HiddenStoreReader reader(path, info); }),
                    "no such file; run lolcats_hidden");
    write_bytes(path, std::string(100, 'x'));
    expect_contains(message_of([&] { const HiddenStoreReader reader(path, info); }), "not an HDF5 file");
    expect_contains(message_of([&] { write_store(path, info); }),
                    "not an HDF5 file: it is no store of hidden states, or "
                    "damaged; delete it");
    std::filesystem::remove(path);
    write_store(path, info);
    expect_stored(HiddenStoreReader(path, info), 4);
    EXPECT_FALSE(has_temporaries(scratch.path()));
    {
        ArrayFile other(path);
        const float x = 1;
        other.write("hidden_states", {1, 1, 1}, &x);
        other.close();
    }
    expect_contains(message_of([&] { const HiddenStoreReader reader(path, info); }), "format_version");
}

TEST(HiddenStoreLayout, ImpossibleStoresAreRefused) {
    const ScratchDirectory scratch;
    auto info = small_info();
    info.dtype = DType::f16;
    expect_contains(message_of([&] { HiddenStoreWriter w(scratch / "a.h5", info, MPI_COMM_SELF); }), "F16");
    info = small_info();
    info.width = 0;
    expect_contains(message_of([&] { HiddenStoreWriter w(scratch / "a.h5", info, MPI_COMM_SELF); }), "[5, 6, 0]");
    info = small_info();
    expect_contains(message_of([&] { HiddenStoreWriter w(scratch / "none/a.h5", info, MPI_COMM_SELF); }), "none/a.h5");
    HiddenStoreWriter writer(scratch / "a.h5", info, MPI_COMM_SELF);
    const auto states = states_of(info, 0);
    expect_contains(message_of([&] { writer.write(5, states.data()); }), "sequence 5");
    expect_contains(message_of([&] { writer.write(-1, states.data()); }), "sequence -1");
    expect_contains(message_of([&] { static_cast<void>(writer.is_done(5)); }), "sequence 5");
    writer.close();
}

TEST(HiddenStoreLayout, LongSequencesAreCutIntoChunks) {
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    auto info = small_info();
    // 3 rows of 300 MB: the file is sparse, as no state is written. The file system must be able to hold 1.8 GB.
    info.sequences = 2;
    info.length = 3;
    info.width = 150'000'000;
    std::error_code error;
    if (std::filesystem::space(scratch.path(), error).available < (std::uint64_t{4} << 30))
        GTEST_SKIP() << "disk too small";
    {
        HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
        writer.close();
    }
    const auto file = hdf5::open_read_only(path);
    const auto dataset = hdf5::open_dataset(file, path, "/hidden_states");
    const hdf5::PropertyList creation(H5Dget_create_plist(dataset.get()));
    hsize_t chunk[3] = {};
    ASSERT_EQ(H5Pget_chunk(creation.get(), 3, chunk), 3);
    EXPECT_EQ(chunk[0], 1U);
    EXPECT_EQ(chunk[1], 1U);
    EXPECT_EQ(chunk[2], 150'000'000U);
}

TEST(HiddenStoreLayout, H5dumpPrintsNumbers) {
    if (std::system("command -v h5dump > /dev/null") != 0) GTEST_SKIP() << "h5dump is not installed";
    const ScratchDirectory scratch;
    const auto path = scratch / "a.h5";
    const HiddenStoreInfo info{1, 1, 4, DType::bf16, 0, 0, "m", "t", "f32", "exact", ""};
    {
        HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
        const float states[] = {1.5F, -0.25F, 65504, 3.140625F};
        writer.write(0, states);
        writer.close();
    }
    const auto output = scratch / "dump.txt";
    ASSERT_EQ(std::system(("h5dump -d /hidden_states " + path.string() + " > " + output.string()).c_str()), 0);
    std::ifstream stream(output);
    const std::string text(std::istreambuf_iterator<char>(stream), {});
    expect_contains(text, "1.5, -0.25, 65536, 3.14062");
    expect_contains(text, "/bfloat16");
}

TEST(HiddenStoreLayout, ThreadsReadAtOnce) {
    const ScratchDirectory scratch;
    const auto info = small_info();
    write_store(scratch / "a.h5", info);
    const HiddenStoreReader reader(scratch / "a.h5", info);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int s = 0; s < 200; ++s) expect_stored(reader, s % 5);
        });
    }
    for (auto& thread : threads) thread.join();
}

TEST_P(HiddenStore, VirtualDatasetShowsAllBlocks) {
    const ScratchDirectory scratch;
    std::filesystem::create_directory(scratch / "hidden");
    std::vector<std::filesystem::path> blocks;
    auto info = small_info(GetParam());
    for (int b = 1; b < 4; ++b) {
        info.block = b;
        info.layer = 3 * b;
        blocks.push_back(scratch / ("hidden/block_" + std::to_string(b) + ".h5"));
        write_store(blocks.back(), info);
    }
    write_virtual_dataset(scratch / "hidden/all.h5", blocks, info);
    // Relative paths: the directory can be moved. A block that has gone reads as NaN.
    std::filesystem::rename(scratch / "hidden", scratch / "moved");
    std::filesystem::remove(scratch / "moved/block_2.h5");
    const auto all = scratch / "moved/all.h5";
    Shape shape;
    const auto values = read_array(all, "/hidden_states", &shape);
    ASSERT_EQ(shape, (Shape{3, 5, 6, 8}));
    EXPECT_EQ(read_array(all, "/layers"), (std::vector<double>{3, 6, 9}));
    const auto overview = hdf5::open_read_only(all);
    EXPECT_EQ(hdf5::read_string_attribute(overview, all, "dtype"), info.weights_dtype);
    EXPECT_EQ(hdf5::read_string_attribute(overview, all, "gemm"), info.gemm);
    std::size_t at = 0;
    for (int b = 0; b < 3; ++b) {
        for (std::int64_t s = 0; s < 5; ++s) {
            for (const float x : states_of(info, s)) {
                const double value = values[at++];
                if (b == 1) {
                    ASSERT_TRUE(std::isnan(value));
                } else {
                    ASSERT_EQ(value, rounded(x, info.dtype));
                }
            }
        }
    }
    EXPECT_FALSE(has_temporaries(scratch / "moved"));
}

TEST(VirtualDataset, BlocksMustFit) {
    const ScratchDirectory scratch;
    auto info = small_info();
    write_store(scratch / "b.h5", info);
    info.width = 9;
    expect_contains(message_of([&] { write_virtual_dataset(scratch / "all.h5", {scratch / "b.h5"}, info); }),
                    "width is 8, not 9");
    info = small_info();
    info.gemm = "bf16";
    expect_contains(message_of([&] { write_virtual_dataset(scratch / "all.h5", {scratch / "b.h5"}, info); }),
                    "gemm is f32, not bf16");
    expect_contains(message_of([&] { write_virtual_dataset(scratch / "all.h5", {scratch / "c.h5"}, info); }), "c.h5");
    expect_contains(message_of([&] { write_virtual_dataset(scratch / "all.h5", {}, info); }), "no block files");
    EXPECT_FALSE(std::filesystem::exists(scratch / "all.h5"));
    EXPECT_FALSE(has_temporaries(scratch.path()));
}

/// One directory for all ranks.
class SharedDirectory {
public:
    SharedDirectory() {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
        if (rank_ == 0) own_.emplace();
        std::string name = rank_ == 0 ? own_->path().string() : "";
        auto size = static_cast<int>(name.size());
        MPI_Bcast(&size, 1, MPI_INT, 0, MPI_COMM_WORLD);
        name.resize(static_cast<std::size_t>(size));
        MPI_Bcast(name.data(), size, MPI_CHAR, 0, MPI_COMM_WORLD);
        path_ = name;
    }
    SharedDirectory(const SharedDirectory&) = delete;
    SharedDirectory& operator=(const SharedDirectory&) = delete;
    ~SharedDirectory() { MPI_Barrier(MPI_COMM_WORLD); } // nobody may still need what is removed now
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

private:
    int rank_ = 0;
    std::optional<ScratchDirectory> own_;
    std::filesystem::path path_;
};

TEST_P(HiddenStore, RanksWriteOneFile) {
    const SharedDirectory scratch;
    const auto path = scratch / "a.h5";
    auto info = small_info(GetParam());
    info.sequences = 23;
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (const bool first_attempt : {true, false}) {
        HiddenStoreWriter writer(path, info, MPI_COMM_WORLD);
        for (std::int64_t s = rank; s < info.sequences; s += ranks) {
            EXPECT_EQ(writer.is_done(s), !first_attempt && s < 11);
            if (writer.is_done(s) || (first_attempt && s >= 11)) continue;
            writer.write(s, states_of(info, s).data());
        }
        writer.close();
    }
    const HiddenStoreReader reader(path, info);
    for (std::int64_t s = 0; s < info.sequences; ++s) expect_stored(reader, s);
}

TEST(HiddenStoreRanks, RefusalReachesEveryRank) {
    const SharedDirectory scratch;
    expect_contains(message_of([&] { HiddenStoreWriter w(scratch / "none/a.h5", small_info(), MPI_COMM_WORLD); }),
                    "none/a.h5");
    HiddenStoreWriter(scratch / "a.h5", small_info(), MPI_COMM_WORLD).close();
    auto other = small_info();
    other.tokens_identity = "other";
    expect_contains(message_of([&] { HiddenStoreWriter w(scratch / "a.h5", other, MPI_COMM_WORLD); }),
                    "token identity is tokens, not other");
}

} // namespace
} // namespace lolcats::io
