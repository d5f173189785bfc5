#pragma once
/// What stages 1 and 2 share of training: the rate, the optimiser's step, when to evaluate and which parameters to
/// keep.
#include "io/trainer_state.hpp"
#include "src/train/batches.hpp"
#include "src/train/parameters.hpp"
#include "src/train/schedule.hpp"

#include <algorithm>
#include <limits>

namespace lolcats {

/// Where a training starts that has not even been evaluated.
inline constexpr int untouched = -1;

/// The order of a training from `start`, which is `untouched` or a number of steps done: train_step(step) for every
/// step, check(steps done) before the first, every options.eval_every and after the last. Asks go_on() before every
/// step; false if that said no.
template <class TrainStep, class Check, class GoOn>
bool for_each_step(const Options& options, const Batches& batches, int start, TrainStep&& train_step, Check&& check,
                   GoOn&& go_on) {
    if (start == untouched) check(0);
    for (int step = std::max(start, 0); step < batches.steps(); ++step) {
        if (!go_on()) return false;
        train_step(step);
        if ((step + 1) % options.eval_every == 0 || step + 1 == batches.steps()) check(step + 1);
    }
    return true;
}

class Progress {
public:
    Progress(const Options& options, double default_rate)
        : options_(options), schedule_(options, options.lr > 0 ? options.lr : default_rate) {}

    [[nodiscard]] double rate() const { return schedule_.rate(); }
    /// Lowest loss on the held-out sequences so far.
    [[nodiscard]] double best() const { return best_; }

    /// Optimiser steps done, which is also what says which sequences come next.
    [[nodiscard]] int step() const { return step_; }
    /// Where for_each_step() is to start.
    [[nodiscard]] int start() const { return start_; }

    /// Calls train_step(step) for every step, and evaluate(step), which returns the loss on the held-out sequences,
    /// before the first, every options.eval_every and after the last. The parameters of the lowest loss are kept and
    /// are there at the end. With nothing held out the schedule follows the mean training loss, and the last parameters
    /// stay. Asks go_on() before every step; where that says no the run ends early and run() returns false.
    template <class TrainStep, class Evaluate, class GoOn>
    bool run(const Batches& batches, ParameterSet& parameters, TrainStep&& train_step, Evaluate&& evaluate,
             GoOn&& go_on) {
        const bool held_out = !batches.validation().empty();
        const auto check = [&](int step) { held_out ? evaluated(parameters, evaluate(step)) : follow_training(); };
        if (!for_each_step(options_, batches, start(), train_step, check, go_on)) return false;
        parameters.restore();
        return true;
    }

    /// The loss on the held-out sequences: the parameters are kept if it is the lowest.
    void evaluated(ParameterSet& parameters, double loss) {
        if (loss < best_) {
            best_ = loss;
            parameters.keep();
        }
        if (step_ > 0) schedule_.evaluated(loss);
    }

    /// Takes the place of evaluated() where nothing is held out.
    void follow_training() {
        if (recent_steps_ > 0) schedule_.evaluated(recent_loss_ / recent_steps_);
        recent_loss_ = 0;
        recent_steps_ = 0;
    }

    /// Everything that changes from step to step, but for the parameters. All of it is exact in double.
    [[nodiscard]] io::ProgressNumbers numbers() const {
        const auto& schedule = schedule_.state();
        return {{"step", step_},
                {"best_loss", best_},
                {"recent_loss", recent_loss_},
                {"recent_steps", recent_steps_},
                {"rate", schedule.rate},
                {"evaluations_without_improvement", schedule.without_improvement},
                {"schedule_best_loss", schedule.best}};
    }

    /// Goes on where numbers() was called.
    void resume(const io::ProgressNumbers& numbers) {
        step_ = start_ = static_cast<int>(numbers.at("step"));
        best_ = numbers.at("best_loss");
        recent_loss_ = numbers.at("recent_loss");
        recent_steps_ = static_cast<int>(numbers.at("recent_steps"));
        schedule_.resume({.rate = numbers.at("rate"),
                          .without_improvement = static_cast<int>(numbers.at("evaluations_without_improvement")),
                          .best = numbers.at("schedule_best_loss")});
    }

    /// The optimiser's step after a batch with this loss, from gradients with this norm.
    void update(ParameterSet& parameters, double loss, double gradient_norm) {
        parameters.step({options_.beta1, options_.beta2, options_.epsilon, options_.weight_decay}, schedule_.rate(),
                        gradient_norm, options_.clip);
        recent_loss_ += loss;
        ++recent_steps_;
        ++step_;
    }

private:
    const Options& options_;
    PlateauSchedule schedule_;
    int start_ = untouched;
    int step_ = 0;
    double best_ = std::numeric_limits<double>::infinity();
    double recent_loss_ = 0;
    int recent_steps_ = 0;
};

} // namespace lolcats
