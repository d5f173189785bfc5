#include "src/train/checkpoints.hpp"

#include "io/fence.hpp"
#include "io/file.hpp"
#include "lolcats/error.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <spdlog/spdlog.h>
#include <sstream>

namespace lolcats {
namespace {

using Role = ParameterSet::Role;
constexpr std::array<std::pair<Role, const char*>, 4> roles{{{Role::values, "parameters"},
                                                             {Role::first_moments, "first_moments"},
                                                             {Role::second_moments, "second_moments"},
                                                             {Role::kept, "best_parameters"}}};

/// By default checkpoints are spaced so that writing them takes at most this share of the time.
constexpr double share_of_time = 1.0 / 64;
/// Taken for the cost of the first one.
constexpr double expected_seconds = 0.05;

/// i of "...layers.{i}....".
int layer_of(const std::string& parameter) {
    constexpr std::string_view before = "layers.";
    const std::size_t begin = parameter.find(before);
    int layer = -1;
    if (begin != std::string::npos)
        std::from_chars(parameter.data() + begin + before.size(), parameter.data() + parameter.size(), layer);
    if (layer < 0) fail("parameter {} belongs to no layer", parameter);
    return layer;
}

io::StateArray to_state(const std::string& role, const ParameterSet::Entry& entry, const Vector<float>& array) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, array);
    return {role, entry.name, entry.shape, {host.data(), host.data() + host.extent(0)}};
}

void copy_to(const Vector<float>& array, const std::vector<float>& values) {
    const auto host = Kokkos::create_mirror_view(array);
    std::copy(values.begin(), values.end(), host.data());
    Kokkos::deep_copy(array, host);
}

void read_parameters(const io::StateReader& reader, ParameterSet& parameters) {
    const auto& entries = parameters.entries();
    if (!entries.empty() && reader.has("best_parameters", entries.front().name)) parameters.keep();
    for (int i = 0; const auto& entry : entries) {
        for (const auto& [role, name] : roles)
            if (const auto array = parameters.array(role, i); array.extent(0) > 0)
                copy_to(array, reader.read(name, entry.name, entry.shape));
        ++i;
    }
}

/// What went wrong in `action`; empty: nothing did.
template <class Action>
std::string problem_of(const Action& action) {
    try {
        action();
    } catch (const Error& error) {
        io::require_current_attempt(); // is no trouble with the disk
        return error.what();
    }
    return {};
}

std::vector<std::filesystem::path> lines_of(const std::string& text) {
    std::vector<std::filesystem::path> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.emplace_back(line);
    return lines;
}

} // namespace

void remove_checkpoints(const std::filesystem::path& directory, const io::TrainingIdentity& identity) {
    const io::CheckpointDirectory checkpoints(directory);
    const auto is_ours = [&](std::int64_t step) {
        try {
            return difference(io::StateReader(checkpoints.parts(step)).identity(), identity).empty();
        } catch (const Error&) {
            return false; // damaged: the others tell
        }
    };
    const auto steps = checkpoints.steps();
    if (std::any_of(steps.begin(), steps.end(), is_ours)) checkpoints.remove();
}

Checkpoints::Checkpoints(const Options& options, Place place, const Communicator& group, Interrupt& interrupt)
    : options_(options), place_(std::move(place)), group_(group), interrupt_(interrupt), directory_(place_.directory),
      longest_seconds_(expected_seconds) {
    if (options.fresh && group.rank() == 0) directory_.remove();
}

/// Paths of the parts of the newest checkpoint that is whole, a line each; nothing if there are no checkpoints.
std::string Checkpoints::choose() const {
    std::string problem;
    for (const std::int64_t step : directory_.steps()) {
        std::vector<std::filesystem::path> parts;
        io::TrainingIdentity identity;
        try {
            parts = directory_.parts(step);
            identity = io::StateReader(parts).identity();
        } catch (const Error& error) {
            spdlog::warn("{}: passing over this checkpoint", error.what());
            problem = error.what();
            continue;
        }
        if (const auto text = difference(identity, place_.identity); !text.empty())
            fail("{}: this checkpoint is of another training: {}; run with the settings it was begun with, give "
                 "another --work, or start anew with --fresh",
                 directory_.of_step(step).string(), text);
        std::string paths;
        for (const auto& part : parts) paths += part.string() + "\n";
        return paths;
    }
    if (!problem.empty()) fail("{}; no checkpoint here is whole: start anew with --fresh", problem);
    return {};
}

std::int64_t Checkpoints::resume(ParameterSet& parameters, Progress& progress) {
    const auto parts = lines_of(group_.broadcast(group_.rank() == 0 ? choose() : "", 0));
    interrupt_.leave_out_interval();
    last_time_ = Clock::now();
    if (parts.empty()) return 0;
    if (!options_.dump_gradients.empty())
        fail("{}: --dump-gradients wants the first batch, which this checkpoint is past; start anew with --fresh, or "
             "leave it out",
             parts.front().parent_path().string());
    const io::StateReader reader(parts);
    const auto numbers = reader.numbers();
    progress.resume(numbers);
    parameters.set_steps(static_cast<long>(numbers.at("optimizer_steps")));
    read_parameters(reader, parameters);
    last_step_ = progress.step();
    if (group_.rank() == 0) spdlog::info("going on from {}", parts.front().parent_path().string());
    return static_cast<std::int64_t>(numbers.at("log_bytes"));
}

bool Checkpoints::is_due(int step) const {
    if (options_.checkpoint_every == 0 || step - std::max(last_step_, 0) < options_.checkpoint_every) return false;
    if (options_.is_given("checkpoint-every")) return true;
    return std::chrono::duration<double>(Clock::now() - last_time_).count() * share_of_time >= longest_seconds_;
}

bool Checkpoints::go_on(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log) {
    const bool stops = group_.any(interrupt_.is_wanted());
    before_step(parameters, progress, log, stops);
    return !stops;
}

void Checkpoints::before_step(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log,
                              bool stops) {
    const bool leads = group_.rank() == 0;
    if (leads || place_.writes) io::require_current_attempt();
    const bool due = group_.any(leads && is_due(progress.step()));
    if ((stops || due) && progress.step() != last_step_) save(parameters, progress, log, stops);
}

void Checkpoints::save(const ParameterSet& parameters, const Progress& progress, const MetricsLog* log, bool must) {
    const auto start = Clock::now();
    const Outcome outcome = write_collectively(parameters, progress, log);
    if (!outcome.problem.empty()) report(outcome.problem, progress.step(), must);
    if (outcome.is_written) last_step_ = progress.step();
    note_cost(start);
}

Checkpoints::Outcome Checkpoints::write_collectively(const ParameterSet& parameters, const Progress& progress,
                                                     const MetricsLog* log) const {
    const bool leads = group_.rank() == 0;
    std::string aside;
    std::string problem;
    if (leads) problem = problem_of([&] { aside = directory_.begin(progress.step()).string(); });
    aside = group_.broadcast(aside, 0);
    if (place_.writes && !aside.empty()) problem = problem_of([&] { write_parts(aside, parameters, progress, log); });
    const auto publish = [&] {
        log->sync();
        directory_.publish(aside, progress.step(), options_.keep_checkpoints);
    };
    bool is_lost = group_.any(!problem.empty());
    if (!is_lost) {
        if (leads) problem = problem_of(publish);
        is_lost = group_.any(!problem.empty());
    }
    if (is_lost && leads && !aside.empty())
        if (const auto left = problem_of([&] { io::remove_tree(aside); }); !left.empty()) problem = left;
    return {.is_written = !is_lost, .problem = problem};
}

void Checkpoints::report(const std::string& problem, int step, bool must) const {
    if (must) fail("{}; the run had to stop, and steps since the last checkpoint are lost", problem);
    spdlog::warn("{}: no checkpoint of step {}; training goes on, older ones stay", problem, step);
}

void Checkpoints::note_cost(Clock::time_point start) {
    last_time_ = Clock::now();
    const double seconds = std::chrono::duration<double>(last_time_ - start).count();
    longest_seconds_ = std::max(longest_seconds_, seconds);
    interrupt_.checkpoint_took(seconds);
    all_seconds_ += seconds;
    ++count_;
}

void Checkpoints::finish() const {
    directory_.remove();
    if (count_ == 0) return;
    const double total = std::chrono::duration<double>(Clock::now() - start_).count();
    spdlog::info("{} checkpoints took {:.3g} s each, {:.2g} % of the time", count_, all_seconds_ / count_,
                 100 * all_seconds_ / total);
}

void Checkpoints::write_parts(const std::filesystem::path& aside, const ParameterSet& parameters,
                              const Progress& progress, const MetricsLog* log) const {
    std::map<int, std::vector<int>> blocks;
    for (int i = 0; const auto& entry : parameters.entries())
        blocks[place_.layout.block_of(layer_of(entry.name))].push_back(i++);
    io::ProgressNumbers numbers;
    if (log != nullptr) {
        numbers = progress.numbers();
        numbers["optimizer_steps"] = static_cast<double>(parameters.steps());
        numbers["log_bytes"] = static_cast<double>(log->size());
    }
    for (const auto& [block, indices] : blocks) {
        std::vector<io::StateArray> arrays;
        for (const auto& [role, name] : roles)
            for (const int i : indices)
                if (const auto array = parameters.array(role, i); array.extent(0) > 0)
                    arrays.push_back(to_state(name, parameters.entries()[i], array));
        io::write_state_part(aside / fmt::format("block_{:02}.h5", block), progress.step(), place_.identity, arrays,
                             std::exchange(numbers, {}));
    }
}

} // namespace lolcats
