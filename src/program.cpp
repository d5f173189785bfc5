#include "lolcats/program.hpp"

#include "io/file.hpp"
#include "kernels/accelerator.hpp"
#include "kernels/views.hpp"
#include "lolcats/error.hpp"
#include "src/comm/communicator.hpp"
#include "src/comm/error_latch.hpp"
#include "src/console.hpp"
#include "src/interrupt.hpp"

#include <fmt/format.h>
#include <mpi.h>
#include <nlohmann/json.hpp>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <optional>
#include <string_view>
#include <thread>

namespace lolcats {
namespace {

/// The hardware threads this process may run on.
cpu_set_t allowed_cpus() {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) CPU_SET(0, &cpus); // more than 1024 of them: count on one only
    return cpus;
}

/// The largest ranks-a-node count in what a launcher left in the environment, such as "4" or "7(x2),3"; 0: unknown.
int launched_on_node() {
    for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"}) {
        const char* text = std::getenv(name);
        if (text == nullptr) continue;
        int most = 0;
        while (text != nullptr) {
            most = std::max(most, std::atoi(text));
            const std::string rest(text);
            const std::size_t comma = rest.find(',');
            text = comma == std::string::npos ? nullptr : text + comma + 1;
        }
        return most;
    }
    return 0;
}

bool has_launcher() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "PMI_SIZE"})
        if (std::getenv(name) != nullptr) return true;
    return false;
}

/// Without a launcher Open MPI starts a daemon beside the program, which takes 0.14 s and serves only programs that
/// start others. Without that daemon all such programs of a user would share one directory, which the first that ends
/// removes: none is made. Nothing of one rank asks for it. Must run before MPI_Init.
void go_without_daemon() {
    if (has_launcher()) return;
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
}

/// Ranks that wait in MPI spin, and starve those that compute when there are more ranks than hardware threads (a
/// barrier then takes 72 ms instead of 50 us). Must run before MPI_Init, when only the launcher's word is known; where
/// each rank is bound to a core of its own the count is an underestimate, and yielding an idle core costs nothing.
void yield_if_crowded() {
    const cpu_set_t cpus = allowed_cpus();
    if (launched_on_node() > CPU_COUNT(&cpus)) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

/// This rank's share of the hardware threads it may use: one that n ranks of the node may use counts 1/n.
int fair_threads(const Communicator& node) {
    const cpu_set_t mine = allowed_cpus();
    std::vector<double> users(CPU_SETSIZE);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) users[cpu] = CPU_ISSET(cpu, &mine) ? 1 : 0;
    node.sum(users.data(), users.size());
    double threads = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) threads += CPU_ISSET(cpu, &mine) ? 1 / users[cpu] : 0;
    return std::max(1, static_cast<int>(threads + 1e-6));
}

/// The GPU of this rank: the ranks of a node take those they see in turn, one each where there are enough.
int choose_accelerator(const Communicator& node) {
    const int count = accelerator_count();
    if (count == 0)
        fail("no GPU: {}; this program was built for GPUs: run it on a node that has one, or use a build for the CPU",
             missing_accelerator());
    return node.rank() % count;
}

Kokkos::InitializationSettings kokkos_settings(const Communicator& node) {
    setenv("OMP_PROC_BIND", "false", 0); // bound threads of several ranks would share one core
    Kokkos::InitializationSettings settings;
    settings.set_disable_warnings(true); // every rank would repeat them
    const int threads = fair_threads(node);
    if (std::getenv("OMP_NUM_THREADS") == nullptr) settings.set_num_threads(threads);
    if constexpr (!runs_on_host) settings.set_device_id(choose_accelerator(node));
    return settings;
}

class MpiSession {
public:
    MpiSession(int& argc, char**& argv) {
        int provided = 0;
        check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
        if (provided < MPI_THREAD_FUNNELED) fail("MPI: this library has no thread support: use one that has");
    }
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;
    ~MpiSession() { MPI_Finalize(); }
};

constexpr const char* out_of_memory =
    "out of memory: use more ranks, or a smaller --micro-batch or --block-layers; lolcats_plan shows the need";

/// What went wrong, in one line.
std::string describe(const std::exception_ptr& problem) {
    std::string text = "ended without an exception to explain it";
    try {
        if (problem) std::rethrow_exception(problem);
    } catch (const Error& error) {
        text = error.what();
    } catch (const std::bad_alloc&) {
        text = out_of_memory;
    } catch (const std::exception& error) {
        // Kokkos throws no bad_alloc of its own.
        const bool memory = std::string_view(error.what()).find("failed to allocate") != std::string_view::npos;
        text = memory ? out_of_memory : fmt::format("unexpected failure: {}", error.what());
    } catch (...) {
        text = "unexpected failure: an exception of unknown type";
    }
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

/// On stderr. That it cannot be written is no reason to fail: fmt::print would throw.
void say(const std::string& text) {
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
}

void print_error(const std::string& program, const std::string& text) {
    show_status("");
    say(fmt::format("{}: error: {}\n", program, text));
}

/// What the terminate handler needs. It lives while the stage runs.
struct Reporter {
    std::string program;
    int rank;
    int size;
    ErrorLatch latch;
};

Reporter* reporter = nullptr;

/// The terminate handler of a run: speaks if no other rank of the node has, and ends all ranks.
[[noreturn]] void report_and_abort() {
    using namespace std::chrono_literals;
    flush_results();
    if (reporter->latch.claim()) {
        const std::string rank = reporter->size > 1 ? fmt::format(" [rank {}]", reporter->rank) : "";
        print_error(reporter->program, describe(std::current_exception()) + rank);
    } else {
        std::this_thread::sleep_for(1s); // the line of the rank that speaks must get out first
    }
    MPI_Abort(MPI_COMM_WORLD, 1);
    std::_Exit(1);
}

/// Puts the terminate handler in place for its lifetime.
class ReporterScope {
public:
    explicit ReporterScope(Reporter& owner) : previous_(std::set_terminate(report_and_abort)) { reporter = &owner; }
    ReporterScope(const ReporterScope&) = delete;
    ReporterScope& operator=(const ReporterScope&) = delete;
    ~ReporterScope() {
        std::set_terminate(previous_);
        reporter = nullptr;
    }

private:
    std::terminate_handler previous_;
};

/// What the ranks of a run have in common, as a JSON object: which program it is, whether it only tells of itself, and
/// all settings but a rank's own memory and time, and the places of what is only read, whose content is compared.
std::string common_settings(const std::string& program, bool go_on, const Options& options) {
    nlohmann::ordered_json settings = {{"program", program}, {"help", !go_on}};
    settings.update(to_json(options));
    for (const char* own : {"activation-memory", "wall-time", "model", "tokens", "feature-maps", "adapter",
                            "init-feature-maps", "init-adapter", "prompts", "load-state"})
        settings.erase(own);
    return settings.dump();
}

/// How this rank's settings differ from those of rank 0, such as a lolcats.toml of the node's own makes them; empty if
/// they do not. `settings`: a JSON object, or empty where they could not be read. Collective.
std::string difference_from_rank_0(const std::string& settings, const Communicator& world) {
    const std::string expected = world.broadcast(settings, 0);
    if (settings.empty() || expected.empty() || settings == expected) return "";
    const auto mine = nlohmann::ordered_json::parse(settings);
    const auto first = nlohmann::ordered_json::parse(expected);
    for (const auto& [key, value] : first.items())
        if (const auto own = mine.value(key, nlohmann::ordered_json()); own != value)
            return fmt::format("{} is {} on rank {}, but {} on rank 0: give all ranks the same options, and one "
                               "configuration file with --config",
                               key, own.dump(), world.rank(), value.dump());
    return "";
}

/// Reads the options on every rank. Returns the exit status if that is all the program has to do. A failure ends all
/// ranks cleanly: the first of them that failed speaks.
std::optional<int> read_options(int argc, char** argv, const ProgramText& program, const Communicator& world,
                                Options& options) {
    std::string text;
    std::string problem;
    bool go_on = false;
    try {
        go_on = parse_options(argc, argv, program, options, text);
        if (!go_on && world.rank() == 0) {
            std::cout << text;
            require_results_out();
        }
    } catch (...) {
        problem = describe(std::current_exception());
    }
    const std::string settings = problem.empty() ? common_settings(program.name, go_on, options) : "";
    const std::string difference = difference_from_rank_0(settings, world);
    if (problem.empty()) problem = difference;
    std::int64_t first_failed = problem.empty() ? world.size() : world.rank();
    world.min(&first_failed, 1);
    if (first_failed == world.rank()) print_error(program.name, problem);
    if (first_failed < world.size()) return 1;
    if (go_on) return std::nullopt;
    return 0;
}

void start_stage(const Options& options, const std::string& name, const Communicator& world, const Communicator& node,
                 const Stage& stage, Arrays arrays) {
    std::optional<Kokkos::ScopeGuard> kokkos;
    if (arrays == Arrays::used) kokkos.emplace(kokkos_settings(node));
    start_console(name);
    if (world.rank() == 0) {
        say(fmt::format("{} {} ({}), {} rank{}\n{}", name, version_string(), git_hash(), world.size(),
                        world.size() > 1 ? "s" : "", to_table(options)));
    }
    stage(options, world);
    if (world.rank() == 0) require_results_out();
    if (!options.done_file.empty() && exit_status() == 0) {
        world.barrier();
        if (world.rank() == 0) io::write_file_atomically(options.done_file, name + "\n");
    }
}

} // namespace

int run_program(int argc, char** argv, const ProgramText& program, const Stage& stage, Arrays arrays) {
    yield_if_crowded();
    go_without_daemon();
    prepare_accelerator();
    const MpiSession mpi(argc, argv);
    const Communicator world = Communicator::world();
    Options options;
    if (const auto status = read_options(argc, argv, program, world, options)) return *status;
    const Communicator node = world.split_by_node();
    Reporter owner{program.name, world.rank(), world.size(), ErrorLatch(node)};
    const ReporterScope scope(owner);
    if (world.size() > 1) { // no catch: see the header
        start_stage(options, program.name, world, node, stage, arrays);
        return exit_status();
    }
    try {
        start_stage(options, program.name, world, node, stage, arrays);
        return exit_status();
    } catch (...) {
        print_error(program.name, describe(std::current_exception()));
    }
    flush_results();
    // HDF5 cannot close a file that it could not write, and crashes when MPI ends with such a file open.
    std::_Exit(1);
}

nlohmann::ordered_json run_deck(const Options& options, const std::string& program) {
    nlohmann::ordered_json deck;
    deck["program"] = program;
    deck["version"] = version_string();
    deck["git"] = git_hash();
    deck["format_version"] = format_version;
    deck["options"] = to_json(options);
    // Where results go and how a run got to its end is no part of what they are: equal runs write equal files, whatever
    // their directory, and however often they were stopped.
    for (const char* name :
         {"work", "dump-gradients", "save-logits", "done-file", "checkpoint-every", "keep-checkpoints", "wall-time",
          "fresh", "verify", "take-over", "stale-after", "communication-timeout", "weights", "activation-memory"})
        deck["options"].erase(name);
    return deck;
}

} // namespace lolcats
