/// The lock on a work directory, between processes and within one. Each rank works alone.
#include "io/work_lock.hpp"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>

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

/// Whether anything opened a directory between the construction of this and the question.
class DirectoryWatch {
public:
    explicit DirectoryWatch(const std::filesystem::path& path) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
        watch_ = ::inotify_add_watch(fd_, path.c_str(), IN_OPEN | IN_ONLYDIR);
    }
    DirectoryWatch(const DirectoryWatch&) = delete;
    DirectoryWatch& operator=(const DirectoryWatch&) = delete;
    ~DirectoryWatch() { ::close(fd_); }
    [[nodiscard]] bool works() const { return watch_ >= 0; }
    [[nodiscard]] bool was_opened() const {
        alignas(inotify_event) std::array<char, 4096> buffer{};
        bool opened = false;
        for (ssize_t size = 0; (size = ::read(fd_, buffer.data(), buffer.size())) > 0;)
            for (ssize_t at = 0; at < size;) {
                inotify_event event{};
                std::memcpy(&event, buffer.data() + at, sizeof event);
                opened = opened || (event.mask & IN_ISDIR) != 0;
                at += static_cast<ssize_t>(sizeof event + event.len);
            }
        return opened;
    }

private:
    int fd_;
    int watch_ = -1;
};

/// What network file systems remember of the names in a directory is only checked where the directory itself is opened.
TEST(WorkLock, NewerAttemptsAreLookedForInADirectoryJustOpened) {
    const ScratchDirectory work;
    std::filesystem::create_directory(work / "attempts");
    write_bytes(work / "attempts/000001.json", "{}");
    set_current_attempt(work / "attempts", 1);
    const DirectoryWatch watch(work / "attempts");
    const bool superseded = is_superseded();
    set_current_attempt({}, 0);
    if (!watch.works()) GTEST_SKIP() << "no inotify here";
    EXPECT_FALSE(superseded);
    EXPECT_TRUE(watch.was_opened());
}

/// A file where the directory was stands for a disk that fails: asked for what is in it, both have an error.
TEST(WorkLock, DiskThatDoesNotTellIsNoNewerAttempt) {
    const ScratchDirectory work;
    write_bytes(work / "attempts", "");
    set_current_attempt(work / "attempts", 1);
    const auto message = message_of([] { require_current_attempt(); });
    expect_contains(message_of([] { static_cast<void>(is_superseded()); }), "cannot tell");
    set_current_attempt({}, 0);
    expect_contains(message, (work / "attempts/000002.json").string());
    expect_contains(message, "cannot tell whether another attempt has begun: Not a directory; look at the disk, then");
    EXPECT_EQ(message.find("taken over"), std::string::npos);
}

TEST(WorkLock, HeartOutlivesADiskThatDoesNotTell) {
    using namespace std::chrono_literals;
    const ScratchDirectory work;
    {
        const WorkLock lock(request(work));
        std::filesystem::rename(work / "attempts", work / "away");
        write_bytes(work / "attempts", "");
        std::this_thread::sleep_for(2s); // a beat that asks in vain
        std::filesystem::remove(work / "attempts");
        std::filesystem::rename(work / "away", work / "attempts");
        EXPECT_FALSE(is_superseded());
    }
    expect_contains(read_file(work / "attempts/000001.json"), "ended");
}

TEST(WorkLock, DeletedRecordsAreNoNewerAttempt) {
    const ScratchDirectory work;
    const WorkLock lock(request(work));
    for (const auto& gone : {work / "attempts/000001.json", work / "attempts"}) {
        std::filesystem::remove(gone);
        EXPECT_FALSE(is_superseded());
        const auto message = message_of([&] { write_file_atomically(work / "file", "x"); });
        expect_contains(message, (work / "attempts").string() + " was deleted");
        expect_contains(message, "run the same command again");
        EXPECT_EQ(message.find("taken over"), std::string::npos);
        EXPECT_FALSE(std::filesystem::exists(work / "file"));
    }
}

/// Else other nodes would see a beat only once the system of the writer gets round to it.
TEST(WorkLock, BeatsAreWrittenThrough) {
    const ScratchDirectory work;
    const WorkLock lock(request(work));
    const auto record = std::filesystem::canonical(attempt_file(lock.directory(), lock.attempt()));
    int found = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (std::filesystem::read_symlink(entry.path(), gone) != record) continue;
        const int flags = ::fcntl(std::stoi(entry.path().filename().string()), F_GETFL);
        if ((flags & O_ACCMODE) != O_RDWR) continue; // the heart asks whether the record is still there
        EXPECT_EQ(flags & O_DSYNC, O_DSYNC);
        ++found;
    }
    EXPECT_EQ(found, 1);
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
