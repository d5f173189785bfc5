#pragma once
/// The learning rate: constant, or lowered when the evaluated loss stops falling.
#include "lolcats/options.hpp"

#include <limits>

namespace lolcats {

/// Reduce-on-plateau: the rate falls by `factor`, down to `min_rate`, after more than `patience` evaluations in a row
/// that did not lower the best loss by a share of 1e-4.
class PlateauSchedule {
public:
    PlateauSchedule(const Options& options, double initial_rate);

    [[nodiscard]] double rate() const { return rate_; }
    void evaluated(double loss);

private:
    bool constant_;
    double rate_;
    double factor_;
    double min_rate_;
    int patience_;
    int without_improvement_ = 0;
    double best_ = std::numeric_limits<double>::infinity();
};

} // namespace lolcats
