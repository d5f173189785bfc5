/// Time of a step of generation by length of context:  bench_generation CONTEXT,CONTEXT... OPTIONS
///
/// The options are those of lolcats_generate: --model, --attention, --batch-size, --max-new-tokens (steps in a round)
/// and so on. A step is all that generation does for one more token of each of --batch-size texts: embedding, layers,
/// logits on the host and the choice of the most likely. No step takes longer for other numbers, so the texts have
/// none: states and caches are filled with a constant, and stand at the context's length. Prints a JSON object a line;
/// times are of the fastest of the rounds, which take the contexts in turn: what slows the machine for a while slows
/// all.
#include "lolcats/error.hpp"
#include "lolcats/program.hpp"
#include "src/stages/generation_model.hpp"
#include "src/stages/sampler.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

namespace lolcats {
namespace {

constexpr int rounds = 5;

std::vector<int> parse_contexts(const std::string& text) {
    std::vector<int> contexts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) contexts.push_back(std::atoi(part.c_str()));
    if (contexts.empty() || *std::min_element(contexts.begin(), contexts.end()) < 1)
        fail("'{}' is no list of context lengths: give numbers separated by commas, then options", text);
    return contexts;
}

class Bench {
public:
    Bench(const Options& options, const Communicator& world, int longest)
        : options_(options), source_(options), sampler_(options),
          model_(source_.config(), source_.load(), {options.batch_size, 1, longest + options.max_new_tokens},
                 choose_arithmetic(options, world)),
          x_("x", options.batch_size, source_.config().hidden_size), slots_(options.batch_size),
          tokens_(options.batch_size) {
        std::iota(slots_.begin(), slots_.end(), 0);
        std::iota(tokens_.begin(), tokens_.end(), 3);
    }

    void measure(const std::vector<int>& contexts) {
        std::vector<double> best(contexts.size(), std::numeric_limits<double>::infinity());
        for (int round = 0; round < rounds; ++round)
            for (std::size_t i = 0; i < contexts.size(); ++i)
                best[i] = std::min(best[i], seconds_of_round(contexts[i]));
        for (std::size_t i = 0; i < contexts.size(); ++i) print(contexts[i], best[i]);
    }

private:
    void print(int context, double seconds) const {
        const nlohmann::ordered_json line = {
            {"attention", options_.attention},
            {"batch", options_.batch_size},
            {"context", context},
            {"milliseconds", 1e3 * seconds / options_.max_new_tokens},
            {"tokens_per_second", options_.batch_size * options_.max_new_tokens / seconds},
            {"state_bytes", model_.state_bytes()}};
        std::cout << line.dump() << std::endl;
    }

    double seconds_of_round(int context) {
        for (const int slot : slots_) model_.begin(slot, context);
        for (const auto& state : model_.states())
            for (const auto& array : {state.sums, state.keys, state.values}) Kokkos::deep_copy(array, 0.02F);
        for (const auto& state : model_.states()) Kokkos::deep_copy(state.feature_sums, 1.0F);
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < options_.max_new_tokens; ++i) step();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

    void step() {
        source_.embed(tokens_, x_);
        model_.step(slots_, x_);
        const auto logits = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace{}, model_.logits(x_));
        for (std::size_t i = 0; i < slots_.size(); ++i)
            tokens_[i] = sampler_.choose({&logits(i, 0), logits.extent(1)}, static_cast<std::int64_t>(i), 0);
    }

    const Options& options_;
    GenerationModel source_;
    Sampler sampler_;
    RecurrentModel<float> model_;
    Matrix<float> x_;
    std::vector<int> slots_;
    std::vector<std::int32_t> tokens_;
};

} // namespace
} // namespace lolcats

int main(int argc, char** argv) {
    using namespace lolcats;
    const std::string contexts = argc > 1 ? argv[1] : "";
    const auto measure = [&](const Options& options, const Communicator& world) {
        const auto lengths = parse_contexts(contexts);
        Bench bench(options, world, *std::max_element(lengths.begin(), lengths.end()));
        bench.measure(lengths);
    };
    return run_program(std::max(argc - 1, 1), argv + (argc > 1 ? 1 : 0),
                       {"bench_generation", "measures steps of generation", ""}, measure);
}
