#include "tests/support/cuda_on_host.hpp"

#include <fmt/format.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

constinit thread_local dim3 threadIdx;
constinit thread_local dim3 blockIdx;
constinit thread_local dim3 blockDim;
constinit thread_local dim3 gridDim;

namespace lolcats::cuda {
constexpr std::size_t guard = 1024;
alignas(128) thread_local unsigned char lolcats_shared_memory[cuda_on_host::largest_shared + guard];
} // namespace lolcats::cuda

namespace cuda_on_host {
namespace {

using lolcats::cuda::guard;
using lolcats::cuda::lolcats_shared_memory;

constexpr int warp_size = 32;
constexpr unsigned char poison = 0xff; // all ones is a NaN in bf16 and in float

struct Copy {
    void* shared;
    const void* global;
    bool valid;

    void perform() const {
        if (valid)
            std::memcpy(shared, global, 16);
        else
            std::memset(shared, 0, 16);
    }
};

/// What a thread waits for: an operation of its warp, or the barrier at a line of a file.
struct Place {
    const char* name = "";
    int line = 0;

    [[nodiscard]] bool same(const Place& other) const {
        return line == other.line && std::strcmp(name, other.name) == 0;
    }
    [[nodiscard]] std::string text() const { return line == 0 ? std::string(name) : fmt::format("{}:{}", name, line); }
};

/// Where threads first .. first + count wait for each other.
struct Meeting {
    int first;
    int count;
    Place place;
    int arrived = 0;
    void* given[warp_size] = {};

    Meeting(int first, int count) : first(first), count(count) {}
};

/// A place to continue at.
struct Context {
    ucontext_t start;
    void* resume[5];
    bool started = true;
};

/// The compiler's jumps between stacks, since swapcontext makes two system calls and the address sanitizer's clears the
/// shadow of a whole stack.
__attribute__((noinline, no_sanitize_address)) void switch_context(Context& from, Context& to) {
    if (__builtin_setjmp(from.resume) != 0) return;
    if (to.started) __builtin_longjmp(to.resume, 1);
    to.started = true;
    setcontext(&to.start);
}

struct Fiber {
    Context context;
    std::unique_ptr<char[]> stack;
    bool finished = false;
    const Meeting* waits_at = nullptr;
    std::deque<std::vector<Copy>> copies; // the last group is open
    void* fake_stack = nullptr;
};

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t stack_bytes = 256 * 1024;
#else
constexpr std::size_t stack_bytes = 64 * 1024;
#endif

struct Engine {
    std::vector<Fiber> fibers;
    std::vector<Meeting> warps;
    Meeting block{0, 0};
    const std::function<void()>* body = nullptr;
    Context scheduler;
    int current = 0;
    int threads = 0;
    std::size_t shared = 0;
    bool descending = false;
    bool late_copies = false;
    std::exception_ptr failure;
    std::map<const void*, std::size_t> allowed;
#ifdef __SANITIZE_ADDRESS__
    void* fake_stack = nullptr;
    const void* stack = nullptr;
    std::size_t stack_size = 0;
#endif
};
Engine engine; // kernels are started from one thread

void enter(int thread) {
    engine.current = thread;
    threadIdx = dim3(static_cast<unsigned>(thread), 0, 0);
    Fiber& fiber = engine.fibers[thread];
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&engine.fake_stack, fiber.stack.get(), stack_bytes);
#endif
    switch_context(engine.scheduler, fiber.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(engine.fake_stack, nullptr, nullptr);
#endif
}

void leave() {
    Fiber& fiber = engine.fibers[engine.current];
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fiber.finished ? nullptr : &fiber.fake_stack, engine.stack, engine.stack_size);
#endif
    switch_context(fiber.context, engine.scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &engine.stack, &engine.stack_size);
#endif
}

void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &engine.stack, &engine.stack_size);
#endif
    try {
        (*engine.body)();
    } catch (...) {
        engine.failure = std::current_exception();
    }
    engine.fibers[engine.current].finished = true;
    leave();
}

/// Returns when all threads of the meeting have arrived; the last one calls `last` first.
template <class Last>
void meet(Meeting& meeting, const Place& place, const Last& last) {
    if (meeting.arrived == 0) meeting.place = place;
    if (!meeting.place.same(place))
        throw std::logic_error("threads that must meet are at " + meeting.place.text() + " and at " + place.text());
    if (++meeting.arrived < meeting.count) {
        engine.fibers[engine.current].waits_at = &meeting;
        leave();
        return;
    }
    last();
    meeting.arrived = 0;
    for (int i = meeting.first; i < meeting.first + meeting.count; ++i) engine.fibers[i].waits_at = nullptr;
}

void start_fiber(Fiber& fiber) {
    if (!fiber.stack) fiber.stack = std::make_unique_for_overwrite<char[]>(stack_bytes);
    fiber.finished = false;
    fiber.waits_at = nullptr;
    fiber.copies.assign(1, {});
    ucontext_t& start = fiber.context.start;
    getcontext(&start);
    start.uc_stack.ss_sp = fiber.stack.get();
    start.uc_stack.ss_size = stack_bytes;
    start.uc_link = nullptr;
    makecontext(&start, fiber_main, 0);
    fiber.context.started = false;
}

[[noreturn]] void report_waiting() {
    std::string message = "threads wait for others that never come:";
    for (int i = 0; i < engine.threads; ++i)
        if (const Meeting* at = engine.fibers[i].waits_at)
            message += " thread " + std::to_string(i) + " at " + at->place.text() + ";";
    throw std::logic_error(message);
}

void check_guard() {
    const unsigned char* end = lolcats_shared_memory + engine.shared;
    if (std::any_of(end, end + guard, [](unsigned char byte) { return byte != poison; }))
        throw std::logic_error("a block wrote beyond the " + std::to_string(engine.shared) +
                               " bytes of shared memory it asked for");
}

void run_block() {
    std::memset(lolcats_shared_memory, poison, engine.shared + guard);
    engine.block = Meeting(0, engine.threads);
    engine.warps.clear();
    for (int first = 0; first < engine.threads; first += warp_size) engine.warps.emplace_back(first, warp_size);
    for (int i = 0; i < engine.threads; ++i) start_fiber(engine.fibers[i]);
    for (int unfinished = engine.threads; unfinished > 0;) {
        bool progress = false;
        for (int i = 0; i < engine.threads; ++i) {
            const int thread = engine.descending ? engine.threads - 1 - i : i;
            Fiber& fiber = engine.fibers[thread];
            if (fiber.finished || fiber.waits_at != nullptr) continue;
            progress = true;
            enter(thread);
            if (engine.failure) std::rethrow_exception(std::exchange(engine.failure, nullptr));
            if (fiber.finished) --unfinished;
        }
        if (!progress) report_waiting();
    }
    check_guard();
}

} // namespace

void run(dim3 blocks, dim3 threads, std::size_t shared, const std::function<void()>& body) {
    engine.body = &body;
    engine.threads = static_cast<int>(threads.x);
    engine.shared = shared;
    if (static_cast<int>(engine.fibers.size()) < engine.threads) engine.fibers.resize(engine.threads);
    gridDim = blocks;
    blockDim = threads;
    int index = 0;
    for (unsigned z = 0; z < blocks.z; ++z)
        for (unsigned y = 0; y < blocks.y; ++y)
            for (unsigned x = 0; x < blocks.x; ++x, ++index) {
                blockIdx = dim3(x, y, z);
                engine.descending = index % 2 == 1;
                engine.late_copies = index / 2 % 2 == 0;
                try {
                    run_block();
                } catch (...) {
                    engine.fibers.clear(); // ended halfway: the address sanitizer guards what is on their stacks
                    throw;
                }
            }
}

void block_barrier(const char* file, int line) {
    meet(engine.block, {file, line}, [] {});
}

void warp_operation(const char* what, void* mine, const std::function<void(void* const (&lanes)[32])>& combine) {
    Meeting& warp = engine.warps[engine.current / warp_size];
    warp.given[engine.current % warp_size] = mine;
    meet(warp, {what, 0}, [&] { combine(warp.given); });
}

void copy_16_bytes(void* shared, const void* global, bool valid) {
    check_shared(shared, 16);
    if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0)
        throw std::logic_error("a copy of 16 bytes starts at an address that is not a multiple of 16");
    const Copy copy{shared, global, valid};
    if (engine.late_copies)
        engine.fibers[engine.current].copies.back().push_back(copy);
    else
        copy.perform();
}

void commit_copies() {
    engine.fibers[engine.current].copies.emplace_back();
}

void wait_for_copies(std::size_t open) {
    auto& copies = engine.fibers[engine.current].copies;
    for (; copies.size() > open + 1; copies.pop_front())
        for (const Copy& copy : copies.front()) copy.perform();
}

void check_shared(const void* at, std::size_t bytes) {
    const auto offset = static_cast<std::ptrdiff_t>(static_cast<const unsigned char*>(at) - lolcats_shared_memory);
    if (offset < 0 || static_cast<std::size_t>(offset) + bytes > engine.shared)
        throw std::logic_error("an address " + std::to_string(offset) + " bytes into " + std::to_string(engine.shared) +
                               " bytes of shared memory");
    if (static_cast<std::size_t>(offset) % bytes != 0)
        throw std::logic_error("an address in shared memory is not a multiple of " + std::to_string(bytes));
}

cudaError_t allow_shared(const void* kernel, std::size_t bytes) {
    if (bytes > static_cast<std::size_t>(largest_shared)) return cudaErrorInvalidValue;
    engine.allowed[kernel] = bytes;
    return cudaSuccess;
}

cudaError_t check_launch(const void* kernel, const cudaLaunchConfig_t& config) {
    const std::size_t allowed = std::max<std::size_t>(48 * 1024, engine.allowed[kernel]);
    const bool good = config.dynamicSmemBytes <= allowed && config.blockDim.x >= 1 &&
                      config.blockDim.x % warp_size == 0 && config.blockDim.x <= 1024 && config.gridDim.x >= 1 &&
                      config.gridDim.y >= 1 && config.gridDim.y <= 65535 && config.gridDim.z >= 1 &&
                      config.gridDim.z <= 65535;
    return good ? cudaSuccess : cudaErrorInvalidValue;
}

} // namespace cuda_on_host
