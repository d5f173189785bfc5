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

    [[nodiscard]] double rate() const { return state_.rate; }
    void evaluated(double loss);

    /// What evaluations have changed.
    struct State {
        double rate;
        int without_improvement = 0;
        double best = std::numeric_limits<double>::infinity();
    };
    [[nodiscard]] const State& state() const { return state_; }
    void resume(const State& state) { state_ = state; }

private:
    bool constant_;
    double factor_;
    double min_rate_;
    int patience_;
    State state_;
};

} // namespace lolcats
