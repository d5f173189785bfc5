#include "tools/bench/block/kernel_times.hpp"

#include "kernels/views.hpp"

namespace lolcats::bench {

namespace {

namespace hooks = Kokkos::Tools::Experimental;

KernelTimes* active = nullptr;

void begin_kernel(const char* name, std::uint32_t, std::uint64_t*) {
    active->begin(name);
}
void end_kernel(std::uint64_t) {
    active->end();
}
void begin_region(const char* name) {
    active->begin(name);
}
void end_region() {
    active->end();
}
void begin_copy(Kokkos_Profiling_SpaceHandle, const char*, const void*, Kokkos_Profiling_SpaceHandle, const char*,
                const void*, std::uint64_t) {
    active->begin("copy");
}

} // namespace

KernelTimes::KernelTimes() {
    Kokkos::fence("kernels are timed from here");
    active = this;
    mark_ = Clock::now();
    hooks::set_begin_parallel_for_callback(begin_kernel);
    hooks::set_end_parallel_for_callback(end_kernel);
    hooks::set_begin_parallel_reduce_callback(begin_kernel);
    hooks::set_end_parallel_reduce_callback(end_kernel);
    hooks::set_push_region_callback(begin_region);
    hooks::set_pop_region_callback(end_region);
    hooks::set_begin_deep_copy_callback(begin_copy);
    hooks::set_end_deep_copy_callback(end_region);
}

KernelTimes::~KernelTimes() {
    hooks::set_begin_parallel_for_callback(nullptr);
    hooks::set_end_parallel_for_callback(nullptr);
    hooks::set_begin_parallel_reduce_callback(nullptr);
    hooks::set_end_parallel_reduce_callback(nullptr);
    hooks::set_push_region_callback(nullptr);
    hooks::set_pop_region_callback(nullptr);
    hooks::set_begin_deep_copy_callback(nullptr);
    hooks::set_end_deep_copy_callback(nullptr);
    active = nullptr;
}

std::map<std::string, KernelTimes::Entry> KernelTimes::read() {
    Kokkos::fence("kernels are timed up to here");
    charge();
    return times_;
}

void KernelTimes::begin(const char* name) {
    Kokkos::fence("a kernel is timed from here");
    charge();
    open_.emplace_back(name);
    if (open_.size() == 1) ++times_[open_.front()].calls;
}

void KernelTimes::end() {
    Kokkos::fence("a kernel is timed up to here");
    charge();
    open_.pop_back();
}

void KernelTimes::charge() {
    const auto now = Clock::now();
    times_[open_.empty() ? "host" : open_.front()].seconds += std::chrono::duration<double>(now - mark_).count();
    mark_ = now;
}

} // namespace lolcats::bench
