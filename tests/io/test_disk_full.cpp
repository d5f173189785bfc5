/// Full disks, made with a small tmpfs: needs the right to mount. Each rank works alone.
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "io/array_file.hpp"
#include "io/file.hpp"
#include "io/hidden_store.hpp"
#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

/// An 8 MiB file system; not mounted() where that is not permitted.
class SmallDisk {
public:
    SmallDisk() {
        std::filesystem::create_directory(root_ / "disk");
        mounted_ = ::mount("tmpfs", path().c_str(), "tmpfs", 0, "size=8m") == 0;
        if (!mounted_) reason_ = std::strerror(errno);
    }
    SmallDisk(const SmallDisk&) = delete;
    SmallDisk& operator=(const SmallDisk&) = delete;
    ~SmallDisk() {
        if (mounted_) ::umount2(path().c_str(), MNT_DETACH);
    }
    [[nodiscard]] bool mounted() const { return mounted_; }
    [[nodiscard]] const std::string& reason() const { return reason_; }
    [[nodiscard]] std::filesystem::path path() const { return root_ / "disk"; }
    [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path() / name; }

    /// Leaves no free block.
    void fill() const {
        const int fd = ::open((*this / "ballast").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
        ASSERT_GE(fd, 0);
        const std::string block(4096, 'x');
        while (::write(fd, block.data(), block.size()) > 0) {
        }
        EXPECT_EQ(errno, ENOSPC);
        ::close(fd);
    }

private:
    ScratchDirectory root_;
    bool mounted_ = false;
    std::string reason_;
};

#define LOLCATS_SMALL_DISK(disk)                                                                                       \
    const SmallDisk disk;                                                                                              \
    if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs: " << disk.reason()

constexpr std::int64_t width = 1 << 17; // a sequence of one bfloat16 row has 256 KiB

HiddenStoreInfo store_info(std::int64_t sequences) {
    return {sequences, 1, width, DType::bf16, 0, 0, "model", "tokens", "bf16", "f32", "deck"};
}

TEST(DiskFull, AtomicWriteKeepsTheOldFile) {
    LOLCATS_SMALL_DISK(disk);
    write_file_atomically(disk / "a", "old");
    const std::string large(16 << 20, 'x');
    const auto message = message_of([&] { write_file_atomically(disk / "a", large); });
    expect_contains(message, (disk / "a").string());
    expect_contains(message, "No space left");
    EXPECT_EQ(read_file(disk / "a"), "old");
    EXPECT_FALSE(has_temporaries(disk.path()));
}

TEST(DiskFull, ArrayFileLeavesNothing) {
    LOLCATS_SMALL_DISK(disk);
    const std::vector<float> large(4 << 20, 1);
    const auto message = message_of([&] {
        ArrayFile file(disk / "a.h5");
        file.write("x", {4 << 20}, large.data());
        file.close();
    });
    expect_contains(message, (disk / "a.h5").string());
    expect_contains(message, "No space left");
    EXPECT_TRUE(std::filesystem::is_empty(disk.path()));
}

TEST(DiskFull, StoreThatCannotFitIsRefusedAtOnce) {
    LOLCATS_SMALL_DISK(disk);
    const auto message = message_of([&] { HiddenStoreWriter writer(disk / "a.h5", store_info(64), MPI_COMM_SELF); });
    expect_contains(message, (disk / "a.h5").string());
    expect_contains(message, "No space left");
    expect_contains(message, "lolcats_hidden");
}

/// Where the sequences of a closed store lie in its file.
std::vector<haddr_t> chunk_addresses(const std::filesystem::path& path, std::int64_t sequences) {
    const auto file = hdf5::open_read_only(path);
    const auto dataset = hdf5::open_dataset(file, path, "/hidden_states");
    std::vector<haddr_t> addresses;
    for (hsize_t s = 0; s < static_cast<hsize_t>(sequences); ++s) {
        const hsize_t coordinates[] = {s, 0, 0};
        unsigned filters = 0;
        haddr_t address = 0;
        hsize_t bytes = 0;
        hdf5::check(H5Dget_chunk_info_by_coord(dataset.get(), coordinates, &filters, &address, &bytes), path, "ask");
        addresses.push_back(address);
    }
    return addresses;
}

/// File systems that cannot reserve space run full while sequences are written: the reservation is undone here.
void give_back_space(const std::filesystem::path& path, const std::vector<haddr_t>& addresses) {
    const int fd = ::open(path.c_str(), O_RDWR);
    ASSERT_GE(fd, 0);
    for (const haddr_t address : addresses) {
        ASSERT_EQ(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(address), width * 2),
                  0)
            << std::strerror(errno);
    }
    ::close(fd);
}

TEST(DiskFull, SequenceThatDoesNotFitIsNotMarkedDone) {
    LOLCATS_SMALL_DISK(disk);
    const auto path = disk / "a.h5";
    const auto info = store_info(16);
    const std::vector<float> states(width, 1.5F);
    std::int64_t written = 0;
    {
        HiddenStoreWriter(path, info, MPI_COMM_SELF).close();
        const auto addresses = chunk_addresses(path, info.sequences);
        HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
        give_back_space(path, addresses);
        writer.write(0, states.data());
        // Leave room for a part of the sequences, the last of them cut in the middle.
        const std::string ballast((8 << 20) - (std::int64_t{5} << 18), 'x');
        write_bytes(disk / "ballast", ballast);
        written = 1;
        const auto message = message_of([&] {
            for (; written < info.sequences; ++written) writer.write(written, states.data());
        });
        ASSERT_LT(written, info.sequences);
        expect_contains(message, path.string());
        expect_contains(message, "cannot write sequence " + std::to_string(written));
        RecordProperty("message", message);
        expect_contains(message, "free space, or look at the disk, then run lolcats_hidden again");
        EXPECT_FALSE(writer.is_done(written));
    }
    std::filesystem::remove(disk / "ballast");
    expect_contains(message_of([&] { const HiddenStoreReader reader(path, info); }),
                    std::to_string(written) + " of 16 sequences are stored");
    // With space again, the same call goes on where it stopped.
    HiddenStoreWriter writer(path, info, MPI_COMM_SELF);
    for (std::int64_t s = 0; s < info.sequences; ++s) {
        EXPECT_EQ(writer.is_done(s), s < written) << s;
        if (!writer.is_done(s)) writer.write(s, states.data());
    }
    writer.close();
    const HiddenStoreReader reader(path, info);
    std::vector<float> out(width);
    for (std::int64_t s = 0; s < info.sequences; ++s) {
        reader.read(s, out.data());
        EXPECT_EQ(out, states);
    }
}

TEST(DiskFull, ReservedStoreIsCompletedOnAFullDisk) {
    LOLCATS_SMALL_DISK(disk);
    const auto info = store_info(16);
    const std::vector<float> states(width, 1.5F);
    HiddenStoreWriter writer(disk / "a.h5", info, MPI_COMM_SELF);
    disk.fill();
    for (std::int64_t s = 0; s < info.sequences; ++s) writer.write(s, states.data());
    writer.close();
    std::vector<float> out(width);
    HiddenStoreReader(disk / "a.h5", info).read(15, out.data());
    EXPECT_EQ(out, states);
}

} // namespace
} // namespace lolcats::io
