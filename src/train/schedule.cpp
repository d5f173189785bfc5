#include "src/train/schedule.hpp"

#include <algorithm>

namespace lolcats {

PlateauSchedule::PlateauSchedule(const Options& options, double initial_rate)
    : constant_(options.schedule == "constant"), rate_(initial_rate), factor_(options.plateau_factor),
      min_rate_(options.min_lr), patience_(options.plateau_patience) {}

void PlateauSchedule::evaluated(double loss) {
    constexpr double threshold = 1e-4;
    if (loss < best_ * (1 - threshold)) {
        best_ = loss;
        without_improvement_ = 0;
    } else {
        ++without_improvement_;
    }
    if (constant_ || without_improvement_ <= patience_) return;
    // A rate set below the floor by the user stays what it is.
    rate_ = std::max(rate_ * factor_, std::min(min_rate_, rate_));
    without_improvement_ = 0;
}

} // namespace lolcats
