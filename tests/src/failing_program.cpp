/// Fails in the way that the environment variable FAILURE names; test_program.sh looks at what is printed.
#include "kernels/views.hpp"
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/stages/run_input.hpp"

#include <fmt/format.h>

#include <csignal>
#include <cstdlib>
#include <new>
#include <thread>

namespace {

/// As a parallel file does: its destructor needs every rank.
struct Collective {
    const lolcats::Communicator& world;
    ~Collective() { MPI_Barrier(world.get()); }
};

/// Arrays travel, and the last rank dies before its turn or never comes to it.
void communicate(const lolcats::Options& options, const lolcats::Communicator& world, const std::string& failure) {
    using namespace std::chrono_literals;
    const auto group = make_array_communicator(world, array_transport(options), "all ranks");
    const lolcats::Vector<float> array("array", 1000000);
    const bool is_last = world.rank() == world.size() - 1;
    group->sum(array.data(), array.size())->wait();
    if (is_last && failure.starts_with("killed")) std::raise(SIGKILL);
    if (is_last) std::this_thread::sleep_for(10min);
    if (failure.ends_with("sum")) group->sum(array.data(), array.size())->wait();
    if (failure.ends_with("broadcast")) group->broadcast(array.data(), array.size(), world.size() - 1)->wait();
    if (failure.ends_with("receive")) group->receive(array.data(), array.size(), world.size() - 1)->wait();
    std::int64_t word = 0;
    if (failure.ends_with("agreement")) group->control().max(&word, 1);
    if (failure.ends_with("send")) group->send(array.data(), array.size(), world.size() - 1)->wait();
}

void stage(const lolcats::Options& options, const lolcats::Communicator& world) {
    const std::string failure = std::getenv("FAILURE") != nullptr ? std::getenv("FAILURE") : "none";
    const bool is_last = world.rank() == world.size() - 1;
    if (failure == "all") lolcats::fail("file.h5: broken: mend it");
    if (failure == "memory") throw std::bad_alloc();
    if (failure == "array") const lolcats::Vector<float> far_too_large("far_too_large", 100'000'000'000'000);
    if (failure == "printed" && world.rank() == 0) {
        fmt::print("a result\n"); // which stays in the buffer, as mpirun gives no terminal
        lolcats::fail("file.h5: broken: mend it");
    }
    if (failure == "strange") throw std::runtime_error("two\nlines");
    if (failure == "number" && is_last) throw 42;
    if (failure.starts_with("killed") || failure.starts_with("silent")) communicate(options, world, failure);
    if (failure == "one") {
        const Collective file{world};
        if (is_last) lolcats::fail("file.h5: broken: mend it");
        world.barrier();
        world.barrier();
    }
    world.barrier();
    if (world.rank() == 0) fmt::print("ran on {} ranks\n", world.size());
}

} // namespace

int main(int argc, char** argv) {
    return lolcats::run_program(argc, argv, {"failing_program", "fails", ""}, stage);
}
