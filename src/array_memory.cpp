#include "src/array_memory.hpp"

#include "kernels/views.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>

namespace lolcats {

namespace {

namespace hooks = Kokkos::Tools::Experimental;

std::atomic<std::int64_t> bytes_now = 0; ///< helper threads allocate, too
std::atomic<std::int64_t> bytes_largest = 0;

bool is_default_memory(const Kokkos_Profiling_SpaceHandle& space) {
    return std::strcmp(space.name, Execution::memory_space::name()) == 0;
}

void allocate(Kokkos_Profiling_SpaceHandle space, const char*, const void*, std::uint64_t size) {
    if (!is_default_memory(space)) return;
    const std::int64_t now = bytes_now += static_cast<std::int64_t>(size);
    std::int64_t largest = bytes_largest;
    while (now > largest && !bytes_largest.compare_exchange_weak(largest, now)) {
    }
}

void deallocate(Kokkos_Profiling_SpaceHandle space, const char*, const void*, std::uint64_t size) {
    if (is_default_memory(space)) bytes_now -= static_cast<std::int64_t>(size);
}

} // namespace

ArrayMemory::ArrayMemory() {
    bytes_now = 0;
    bytes_largest = 0;
    hooks::set_allocate_data_callback(allocate);
    hooks::set_deallocate_data_callback(deallocate);
}

ArrayMemory::~ArrayMemory() {
    hooks::set_allocate_data_callback(nullptr);
    hooks::set_deallocate_data_callback(nullptr);
}

double ArrayMemory::largest() const {
    return static_cast<double>(bytes_largest.load());
}

} // namespace lolcats
