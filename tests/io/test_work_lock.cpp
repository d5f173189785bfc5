/// The lock on a work directory, between processes and within one. Each rank works alone.
#include "io/work_lock.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "io/fence.hpp"
#include "io/file.hpp"
#include "tests/io/support.hpp"

namespace lolcats::io {
namespace {

using namespace testing;

WorkLock::Request request(const ScratchDirectory& work, bool take_over = false) {
    return {work.path(), "lolcats_test", 3, take_over};
}

TEST(WorkLock, AttemptsAreNumberedAndEnd) {
    const ScratchDirectory work;
    for (int number = 1; number <= 3; ++number) {
        const WorkLock lock(request(work));
        EXPECT_EQ(lock.attempt(), number);
        EXPECT_EQ(current_attempt(), number);
        expect_contains(read_file(attempt_file(lock.directory(), number)), "running");
        expect_contains(temporary_name("file").string(), ".tmp.a" + std::to_string(number));
    }
    EXPECT_EQ(current_attempt(), 0);
    expect_contains(read_file(attempt_file(work / "attempts", 3)), "ended");
}

TEST(WorkLock, LiveAttemptIsRefused) {
    const ScratchDirectory work;
    const WorkLock lock(request(work));
    const auto message = message_of([&] { const WorkLock second(request(work)); });
    expect_contains(message, work.path().string());
    expect_contains(message, "lolcats_test is at work");
    expect_contains(message, "pid " + std::to_string(::getpid()));
    EXPECT_FALSE(is_superseded());
}

TEST(WorkLock, KilledAttemptGivesWayAtOnce) {
    const ScratchDirectory work;
    const pid_t child = ::fork();
    if (child == 0) {
        const WorkLock lock(request(work));
        ::raise(SIGKILL);
    }
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const auto start = std::chrono::steady_clock::now();
    const WorkLock lock(request(work));
    EXPECT_EQ(lock.attempt(), 2);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST(WorkLock, SupersededAttemptPublishesNothing) {
    const ScratchDirectory work;
    std::filesystem::create_directory(work / "lora");
    WorkLock old(request(work));
    AppendFile log(work / "log", 0);
    log.append("a\n");
    write_bytes(temporary_name(work / "lora/file"), "half");
    write_bytes(work / "attempts/000002.json", "{}"); // what a newer attempt does first
    EXPECT_TRUE(is_superseded());
    expect_contains(message_of([&] { write_file_atomically(work / "file", "x"); }), "taken over");
    expect_contains(message_of([&] { log.append("b\n"); }), "taken over");
    EXPECT_FALSE(std::filesystem::exists(work / "file"));
    EXPECT_EQ(read_file(work / "log"), "a\n");
}

TEST(WorkLock, LeftoversOfOlderAttemptsAreRemoved) {
    const ScratchDirectory work;
    for (const char* name : {"lora", "lora/state", "lora/state/step_00000002.tmp.a1.17", "transfer"})
        std::filesystem::create_directory(work / name);
    write_bytes(work / "lora/state/step_00000002.tmp.a1.17/block_00.h5", "x");
    write_bytes(work / "transfer/block_00.safetensors.tmp.a1.17", "x");
    write_bytes(work / "transfer/block_00.safetensors", "x");
    write_bytes(work / "transfer/notes.tmp.txt", "x");
    const WorkLock lock(request(work));
    EXPECT_TRUE(std::filesystem::is_empty(work / "lora/state"));
    EXPECT_TRUE(std::filesystem::exists(work / "transfer/block_00.safetensors"));
    EXPECT_TRUE(std::filesystem::exists(work / "transfer/notes.tmp.txt"));
    EXPECT_FALSE(has_temporaries(work / "lora"));
    EXPECT_FALSE(std::filesystem::exists(work / "transfer/block_00.safetensors.tmp.a1.17"));
}

TEST(WorkLock, OldRecordsAreRemovedOldestFirst) {
    const ScratchDirectory work;
    for (int i = 0; i < 25; ++i) const WorkLock lock(request(work));
    EXPECT_FALSE(std::filesystem::exists(attempt_file(work / "attempts", 5)));
    EXPECT_TRUE(std::filesystem::exists(attempt_file(work / "attempts", 6)));
    set_current_attempt(work / "attempts", 3); // an attempt from long ago
    EXPECT_TRUE(is_superseded());
    set_current_attempt({}, 0);
}

} // namespace
} // namespace lolcats::io
