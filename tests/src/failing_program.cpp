/// Fails in the way that the environment variable FAILURE names; test_program.sh looks at what is printed.
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/comm/communicator.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <new>

namespace {

/// As a parallel file does: its destructor needs every rank.
struct Collective {
    const lolcats::Communicator& world;
    ~Collective() { MPI_Barrier(world.get()); }
};

void stage(const lolcats::Options&, const lolcats::Communicator& world) {
    const std::string failure = std::getenv("FAILURE") != nullptr ? std::getenv("FAILURE") : "none";
    const bool is_last = world.rank() == world.size() - 1;
    if (failure == "all") lolcats::fail("file.h5: broken: mend it");
    if (failure == "memory") throw std::bad_alloc();
    if (failure == "strange") throw std::runtime_error("two\nlines");
    if (failure == "number" && is_last) throw 42;
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
    return lolcats::run_program(argc, argv, "failing_program", "Fails.", stage);
}
