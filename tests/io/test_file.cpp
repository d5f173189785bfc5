#include "io/file.hpp"

#include <sys/stat.h>

#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

TEST(File, TemporaryNamesAreKnownAgain) {
    EXPECT_TRUE(is_temporary_name(temporary_name("work/block_01.h5").filename().string()));
    EXPECT_TRUE(is_temporary_name("block_01.h5.tmp.a12.345"));
    EXPECT_TRUE(is_temporary_name("block_01.h5.tmp.a1.19001-650772481-19001.lock"));
    EXPECT_TRUE(is_temporary_name("block_02.h5-764608513-16754.lock"));
    for (const char* name :
         {"block_01.h5", "block_01.h5.lock", "block_01.h5.tmp", "block_01.h5.tmp.a1.345.old", "lock", "a-1-2.lock"})
        EXPECT_FALSE(is_temporary_name(name)) << name;
}

TEST(File, AtomicWriteReplacesAndLeavesNoTemporary) {
    const ScratchDirectory scratch;
    write_bytes(scratch / "a", "old");
    write_file_atomically(scratch / "a", "new content");
    EXPECT_EQ(read_file(scratch / "a"), "new content");
    EXPECT_FALSE(has_temporaries(scratch.path()));
}

TEST(File, FailedWriterKeepsTheOldFile) {
    const ScratchDirectory scratch;
    write_bytes(scratch / "a", "old");
    const auto message = message_of([&] {
        write_file_atomically(scratch / "a", [&](int fd) {
            write_all(fd, "half", 4, scratch / "a");
            fail("the other half is missing");
        });
    });
    EXPECT_EQ(message, "the other half is missing");
    EXPECT_EQ(read_file(scratch / "a"), "old");
    EXPECT_FALSE(has_temporaries(scratch.path()));
}

TEST(File, FullDeviceIsAnErrorThatNamesTheFile) {
    if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
    std::FILE* full = std::fopen("/dev/full", "w");
    ASSERT_NE(full, nullptr);
    const auto message = message_of([&] { write_all(fileno(full), "data", 4, "/somewhere/output"); });
    std::fclose(full);
    expect_contains(message, "/somewhere/output: cannot write: No space left");
}

TEST(File, MissingDirectoryIsNamed) {
    const ScratchDirectory scratch;
    expect_contains(message_of([&] { write_file_atomically(scratch / "none/a", "x"); }), "none/a");
    expect_contains(message_of([&] { read_file(scratch / "none"); }), "No such file");
    expect_contains(message_of([&] { read_file(scratch.path()); }), "is a directory");
}

TEST(File, DirectoriesAreCreatedOrTheObstacleIsNamed) {
    const ScratchDirectory scratch;
    io::create_directories(scratch / "a/b/c");
    io::create_directories(scratch / "a/b/c");
    EXPECT_TRUE(std::filesystem::is_directory(scratch / "a/b/c"));
    write_bytes(scratch / "file", "x");
    expect_contains(message_of([&] { io::create_directories(scratch / "file"); }), "file: ");
    expect_contains(message_of([&] { io::create_directories(scratch / "file/sub"); }), "file/sub: ");
}

TEST(File, EmptyFileReadsAsEmpty) {
    const ScratchDirectory scratch;
    write_bytes(scratch / "empty", "");
    EXPECT_EQ(read_file(scratch / "empty"), "");
}

TEST(File, HashIsXxh3) {
    EXPECT_EQ(to_hex(hash64({})), "2d06800538d394c2"); // the published value for no input
    EXPECT_EQ(to_hex(0xabcU), "0000000000000abc");
    const std::string a = "a", b = "b";
    EXPECT_NE(hash64(std::as_bytes(std::span(a))), hash64(std::as_bytes(std::span(b))));
}

TEST(File, PrintableTextIsOneLine) {
    EXPECT_EQ(printable("a\nb\x01"), "a?b?");
    EXPECT_EQ(printable(std::string(1000, 'x')).size(), 123U);
}

} // namespace
} // namespace lolcats::io
