/// A library to preload (LD_PRELOAD): chosen calls on chosen files fail as on a bad disk, in programs that know nothing
/// of it.
///
///     LOLCATS_FAULT="CALL PATTERN NUMBER EFFECT"
///
/// CALL     open, read, write (with or without a place, of one piece or several), fsync, fallocate, rename, unlink, map
/// PATTERN  of the file's path as in fnmatch, where * also stands for /; of the new name for rename
/// NUMBER   n: the n-th such call of the process; n+: that one and all later ones
/// EFFECT   EIO, ENOSPC, EDQUOT: the call fails so. For read and write also half: the call does half of what it was
///          asked, at least a byte, and none: it does nothing and says so. A map that fails is made, but pages of its
///          second half cannot be had: touching one raises SIGBUS, as it does where the disk does not give it.
///
/// LOLCATS_FAULT_RANK, if set, chooses the rank. LOLCATS_FAULT_LOG names a file that gets a line for each fault made:
/// "PROCESS CALL PATH NUMBER".
#include <dlfcn.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

namespace {

enum class Effect { none_at_all, error, half, none };

struct Plan {
    std::string call;
    std::string pattern;
    long first = 0;
    bool repeats = false;
    Effect effect = Effect::none_at_all;
    int error = 0;
};

[[noreturn]] void refuse(const std::string& text) {
    std::fprintf(stderr, "fault_injection: cannot understand LOLCATS_FAULT=\"%s\"\n", text.c_str());
    std::abort();
}

void set_effect(Plan& plan, const std::string& name, const std::string& text) {
    plan.effect = Effect::error;
    if (name == "EIO")
        plan.error = EIO;
    else if (name == "ENOSPC")
        plan.error = ENOSPC;
    else if (name == "EDQUOT")
        plan.error = EDQUOT;
    else if (name == "half")
        plan.effect = Effect::half;
    else if (name == "none")
        plan.effect = Effect::none;
    else
        refuse(text);
}

bool is_other_rank() {
    const char* wanted = std::getenv("LOLCATS_FAULT_RANK");
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return wanted != nullptr && std::strcmp(wanted, rank != nullptr ? rank : "0") != 0;
}

Plan read_plan() {
    Plan plan;
    const char* given = std::getenv("LOLCATS_FAULT");
    if (given == nullptr || is_other_rank()) return plan;
    std::istringstream stream(given);
    std::string number, effect;
    if (!(stream >> plan.call >> plan.pattern >> number >> effect)) refuse(given);
    plan.repeats = number.ends_with('+');
    plan.first = std::atol(number.c_str());
    if (plan.first < 1) refuse(given);
    set_effect(plan, effect, given);
    return plan;
}

const Plan& plan() {
    static const Plan read = read_plan();
    return read;
}

/// The system's own function.
template <class Function>
Function next(const char* name, Function) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

std::string path_of(int fd) {
    char path[4096];
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t size = ::readlink(link.c_str(), path, sizeof path);
    return {path, static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
}

void note(const char* call, const std::string& path, long number) {
    const char* log = std::getenv("LOLCATS_FAULT_LOG");
    if (log == nullptr) return;
    const std::string line = std::to_string(::getpid()) + " " + call + " " + path + " " + std::to_string(number) + "\n";
    const int fd = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666));
    ::syscall(SYS_write, fd, line.data(), line.size());
    ::syscall(SYS_close, fd);
}

/// Whether this call is to go wrong; counts it if it could.
bool strikes(const char* call, const std::string& path) {
    static std::atomic<long> count{0};
    if (plan().effect == Effect::none_at_all || plan().call != call) return false;
    if (::fnmatch(plan().pattern.c_str(), path.c_str(), 0) != 0) return false;
    const long number = ++count;
    if (plan().repeats ? number < plan().first : number != plan().first) return false;
    note(call, path, number);
    return true;
}

bool strikes(const char* call, int fd) {
    if (plan().effect == Effect::none_at_all || plan().call != call) return false;
    return strikes(call, path_of(fd));
}

/// The file is `name` in `directory`, unless that is its path already.
bool strikes(const char* call, int directory, const char* name) {
    if (plan().effect == Effect::none_at_all || plan().call != call) return false;
    const bool is_whole = *name == '/' || directory == AT_FDCWD;
    return strikes(call, is_whole ? std::string(name) : path_of(directory) + "/" + name);
}

int failed() {
    errno = plan().error;
    return -1;
}

/// The permissions of a file that a call with these flags may create, which follow the flags; 0 where none follow.
mode_t mode_after(int flags, va_list& rest) {
    const bool creates = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
    return creates ? va_arg(rest, mode_t) : 0;
}

/// What a transfer that goes wrong does; `transfer(size)` does so much of it.
template <class Transfer>
ssize_t spoil(std::size_t size, Transfer&& transfer) {
    if (plan().effect == Effect::error) return failed();
    if (plan().effect == Effect::none) return 0;
    return transfer(std::max<std::size_t>(size / 2, 1));
}

} // namespace

extern "C" {

int openat64(int directory, const char* name, int flags, ...) {
    static const auto real = next("openat64", &openat64);
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = mode_after(flags, rest);
    va_end(rest);
    return strikes("open", directory, name) ? failed() : real(directory, name, flags, mode);
}

int openat(int directory, const char* name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = mode_after(flags, rest);
    va_end(rest);
    return openat64(directory, name, flags, mode);
}

int open64(const char* name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = mode_after(flags, rest);
    va_end(rest);
    return openat64(AT_FDCWD, name, flags, mode);
}

int open(const char* name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = mode_after(flags, rest);
    va_end(rest);
    return openat64(AT_FDCWD, name, flags, mode);
}

ssize_t read(int fd, void* to, size_t size) {
    static const auto real = next("read", &read);
    if (!strikes("read", fd)) return real(fd, to, size);
    return spoil(size, [&](size_t part) { return real(fd, to, part); });
}

ssize_t pread64(int fd, void* to, size_t size, off64_t place) {
    static const auto real = next("pread64", &pread64);
    if (!strikes("read", fd)) return real(fd, to, size, place);
    return spoil(size, [&](size_t part) { return real(fd, to, part, place); });
}

ssize_t pread(int fd, void* to, size_t size, off_t place) {
    return pread64(fd, to, size, place);
}

ssize_t preadv64(int fd, const iovec* pieces, int count, off64_t place) {
    static const auto real = next("preadv64", &preadv64);
    if (count < 1 || !strikes("read", fd)) return real(fd, pieces, count, place);
    return spoil(pieces->iov_len, [&](size_t part) {
        const iovec piece{pieces->iov_base, part};
        return real(fd, &piece, 1, place);
    });
}

ssize_t preadv(int fd, const iovec* pieces, int count, off_t place) {
    return preadv64(fd, pieces, count, place);
}

ssize_t write(int fd, const void* from, size_t size) {
    static const auto real = next("write", &write);
    if (!strikes("write", fd)) return real(fd, from, size);
    return spoil(size, [&](size_t part) { return real(fd, from, part); });
}

ssize_t pwrite64(int fd, const void* from, size_t size, off64_t place) {
    static const auto real = next("pwrite64", &pwrite64);
    if (!strikes("write", fd)) return real(fd, from, size, place);
    return spoil(size, [&](size_t part) { return real(fd, from, part, place); });
}

ssize_t pwrite(int fd, const void* from, size_t size, off_t place) {
    return pwrite64(fd, from, size, place);
}

ssize_t pwritev64(int fd, const iovec* pieces, int count, off64_t place) {
    static const auto real = next("pwritev64", &pwritev64);
    if (count < 1 || !strikes("write", fd)) return real(fd, pieces, count, place);
    return spoil(pieces->iov_len, [&](size_t part) {
        const iovec piece{pieces->iov_base, part};
        return real(fd, &piece, 1, place);
    });
}

ssize_t pwritev(int fd, const iovec* pieces, int count, off_t place) {
    return pwritev64(fd, pieces, count, place);
}

int fsync(int fd) {
    static const auto real = next("fsync", &fsync);
    return strikes("fsync", fd) ? failed() : real(fd);
}

int fallocate64(int fd, int mode, off64_t place, off64_t size) {
    static const auto real = next("fallocate64", &fallocate64);
    return strikes("fallocate", fd) ? failed() : real(fd, mode, place, size);
}

int fallocate(int fd, int mode, off_t place, off_t size) {
    return fallocate64(fd, mode, place, size);
}

int rename(const char* from, const char* to) noexcept {
    static const auto real = next("rename", &rename);
    return strikes("rename", std::string(to)) ? failed() : real(from, to);
}

int unlinkat(int directory, const char* name, int flags) noexcept {
    static const auto real = next("unlinkat", &unlinkat);
    return strikes("unlink", directory, name) ? failed() : real(directory, name, flags);
}

void* mmap64(void* wish, size_t size, int protection, int flags, int fd, off64_t place) noexcept {
    static const auto real = next("mmap64", &mmap64);
    void* map = real(wish, size, protection, flags, fd, place);
    if (fd < 0 || map == MAP_FAILED || !strikes("map", fd)) return map;
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t half = size / 2 / page * page;
    const int empty = ::memfd_create("empty", MFD_CLOEXEC); // none of its pages lies in the file
    real(static_cast<char*>(map) + half, size - half, protection, MAP_SHARED | MAP_FIXED, empty, 0);
    ::close(empty);
    return map;
}

void* mmap(void* wish, size_t size, int protection, int flags, int fd, off_t place) noexcept {
    return mmap64(wish, size, protection, flags, fd, place);
}

} // extern "C"
