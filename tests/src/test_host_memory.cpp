#include "src/host_memory.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>

namespace lolcats::test {
namespace {

namespace fs = std::filesystem;

constexpr double gibibyte = 1024.0 * 1024 * 1024;

/// Files as Linux shows them, in a directory of the test's own.
class HostMemory : public testing::Test {
protected:
    fs::path directory = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();

    void SetUp() override {
        fs::remove_all(directory);
        write("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\nSwapFree: 1048576 kB\n");
        write("proc/self/cgroup", "0::/job/step\n");
        write("groups/job/memory.max", "max\n");
        write("groups/job/step/memory.max", "max\n");
    }
    void TearDown() override { fs::remove_all(directory); }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((directory / name).parent_path());
        std::ofstream(directory / name) << text;
    }
    [[nodiscard]] double free() const { return host_memory_free(directory / "proc", directory / "groups"); }
};

TEST_F(HostMemory, IsWhatTheHostHasWithItsSwap) {
    EXPECT_EQ(free(), 9 * gibibyte);
}

TEST_F(HostMemory, IsBoundedByEveryGroupAbove) {
    write("groups/job/memory.max", "6442450944\n");
    write("groups/job/memory.stat", "file 4294967296\nanon 1073741824\n");
    EXPECT_EQ(free(), 5 * gibibyte);
    write("groups/job/step/memory.max", "3221225472\n");
    write("groups/job/step/memory.stat", "anon 1073741824\n");
    EXPECT_EQ(free(), 2 * gibibyte);
}

TEST_F(HostMemory, TakesNoNoticeOfOlderGroups) {
    write("proc/self/cgroup", "8:memory:/job/step\n1:name=systemd:/\n");
    write("groups/job/memory.max", "1024\n");
    EXPECT_EQ(free(), 9 * gibibyte);
}

TEST_F(HostMemory, IsInfiniteWhereNothingSays) {
    fs::remove_all(directory);
    EXPECT_TRUE(std::isinf(free()));
}

TEST(HostMemoryHere, IsSome) {
    EXPECT_GT(host_memory_free(), 0);
}

} // namespace
} // namespace lolcats::test
