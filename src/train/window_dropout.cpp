#include "src/train/window_dropout.hpp"

#include "kernels/random.hpp"

namespace lolcats {

namespace {

constexpr std::uint64_t stream = 0x77696e646f77ULL; // apart from the shuffling and the dropout of the same seed

} // namespace

WindowDropout::WindowDropout(const Options& options, int steps)
    : share_(options.window_dropout), size_only_(options.window_dropout_kind == "size"), seed_(options.seed),
      steps_(steps) {}

StudentForm WindowDropout::form(const StudentForm& form, int step) const {
    const std::uint64_t random = mix_bits(mix_bits(seed_ ^ stream) + static_cast<std::uint64_t>(step));
    const double share = share_ * (1 - static_cast<double>(step) / steps_);
    if (form.near == NearKeys::none || unit_interval(random) >= share) return form;
    StudentForm hit = form;
    if (size_only_)
        hit.window = 1 + static_cast<int>(mix_bits(random) % static_cast<std::uint64_t>(form.window));
    else
        hit.near = NearKeys::none;
    return hit;
}

} // namespace lolcats
