#pragma once
/// What stages 1 and 2 share of training: the rate, the optimiser's step, when to evaluate and which parameters to
/// keep.
#include "src/train/batches.hpp"
#include "src/train/parameters.hpp"
#include "src/train/schedule.hpp"

#include <limits>

namespace lolcats {

class Progress {
public:
    Progress(const Options& options, double default_rate)
        : options_(options), schedule_(options, options.lr > 0 ? options.lr : default_rate) {}

    [[nodiscard]] double rate() const { return schedule_.rate(); }
    /// Lowest loss on the held-out sequences so far.
    [[nodiscard]] double best() const { return best_; }

    /// Calls train_step(step) for every step, and evaluate(step), which returns the loss on the held-out sequences,
    /// before the first, every options.eval_every and after the last. The parameters of the lowest loss are kept and
    /// are there at the end. With nothing held out the schedule follows the mean training loss, and the last parameters
    /// stay.
    template <class TrainStep, class Evaluate>
    void run(const Batches& batches, ParameterSet& parameters, TrainStep&& train_step, Evaluate&& evaluate) {
        const bool held_out = !batches.validation().empty();
        const auto check = [&](int step) { held_out ? keep_best(parameters, step, evaluate) : follow_training(); };
        check(0);
        for (int step = 0; step < batches.steps(); ++step) {
            train_step(step);
            if ((step + 1) % options_.eval_every == 0 || step + 1 == batches.steps()) check(step + 1);
        }
        if (held_out) parameters.restore();
    }

    /// The optimiser's step after a batch with this loss, from gradients with this norm.
    void update(ParameterSet& parameters, double loss, double gradient_norm) {
        parameters.step({options_.beta1, options_.beta2, options_.epsilon, options_.weight_decay}, schedule_.rate(),
                        gradient_norm, options_.clip);
        recent_loss_ += loss;
        ++recent_steps_;
    }

private:
    template <class Evaluate>
    void keep_best(ParameterSet& parameters, int step, Evaluate& evaluate) {
        const double loss = evaluate(step);
        if (loss < best_) {
            best_ = loss;
            parameters.keep();
        }
        if (step > 0) schedule_.evaluated(loss);
    }

    void follow_training() {
        if (recent_steps_ > 0) schedule_.evaluated(recent_loss_ / recent_steps_);
        recent_loss_ = 0;
        recent_steps_ = 0;
    }

    const Options& options_;
    PlateauSchedule schedule_;
    double best_ = std::numeric_limits<double>::infinity();
    double recent_loss_ = 0;
    int recent_steps_ = 0;
};

} // namespace lolcats
