#include "src/train/schedule.hpp"

#include <algorithm>

namespace lolcats {

PlateauSchedule::PlateauSchedule(const Options& options, double initial_rate)
    : constant_(options.schedule == "constant"), factor_(options.plateau_factor), min_rate_(options.min_lr),
      patience_(options.plateau_patience), state_{.rate = initial_rate} {}

void PlateauSchedule::evaluated(double loss) {
    constexpr double threshold = 1e-4;
    auto& [rate, without_improvement, best] = state_;
    if (loss < best * (1 - threshold)) {
        best = loss;
        without_improvement = 0;
    } else {
        ++without_improvement;
    }
    if (constant_ || without_improvement <= patience_) return;
    // A rate set below the floor by the user stays what it is.
    rate = std::max(rate * factor_, std::min(min_rate_, rate));
    without_improvement = 0;
}

} // namespace lolcats
