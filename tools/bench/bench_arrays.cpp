/// How fast arrays travel between ranks.
///   mpirun -n N bench_arrays [--communication nccl|mpi]
/// Bandwidths are those of an array: bytes of it over the seconds that the slowest rank took, the best of several
/// turns.
#include "lolcats/program.hpp"
#include "src/stages/run_input.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace {

using namespace lolcats;
using Clock = std::chrono::steady_clock;

/// GB/s of an operation on `bytes` bytes.
template <class Operation>
double bandwidth(const Communicator& world, std::size_t bytes, Operation&& operation) {
    constexpr int turns = 7; // in the first one, ranks connect
    double best = std::numeric_limits<double>::infinity();
    for (int turn = 0; turn < turns; ++turn) {
        world.barrier();
        const auto start = Clock::now();
        operation();
        double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        world.max(&seconds, 1);
        best = std::min(best, seconds);
    }
    return static_cast<double>(bytes) / best / 1e9;
}

void measure(const Options& options, const Communicator& world) {
    const auto group = make_array_communicator(world, array_transport(options), "all ranks");
    const int last = world.size() - 1;
    if (world.rank() == 0)
        fmt::print("{} ranks by {}, GB/s\n{:>12} {:>10} {:>10} {:>10}\n", world.size(), group->name(), "bytes", "sum",
                   "broadcast", "0 to last");
    for (std::size_t bytes = 1 << 16; bytes <= std::size_t{1} << 28; bytes *= 8) {
        const Vector<double> array("array", bytes / sizeof(double));
        const double sum = bandwidth(world, bytes, [&] { group->sum(array.data(), array.size())->wait(); });
        const double broadcast = bandwidth(world, bytes, [&] { group->broadcast(array.data(), bytes, 0)->wait(); });
        const double message = bandwidth(world, bytes, [&] {
            if (last == 0) return;
            if (world.rank() == 0) group->send(array.data(), bytes, last)->wait();
            if (world.rank() == last) group->receive(array.data(), bytes, 0)->wait();
        });
        if (world.rank() == 0) fmt::print("{:12} {:10.2f} {:10.2f} {:10.2f}\n", bytes, sum, broadcast, message);
    }
}

} // namespace

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, {"bench_arrays", "measures arrays that travel between ranks", ""}, measure);
}
