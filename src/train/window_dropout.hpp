#pragma once
/// Batches that train without their softmax window, so that the linear branch has to carry what the window would
/// (scheduled sliding-window dropout, arXiv 2510.05901).
#include "kernels/attention_form.hpp"
#include "lolcats/options.hpp"

#include <cstdint>

namespace lolcats {

/// Of step s of S a batch is hit with probability options.window_dropout (1 - s / S). It then has no near keys at all
/// ("branch"), or a window drawn evenly from 1 .. w ("size"). The draw is a hash of the seed and the step: the same on
/// all ranks and in all blocks, and after a restart. Evaluations are never hit.
class WindowDropout {
public:
    WindowDropout(const Options& options, int steps);

    /// What a student of this form computes with in step `step`, from 0.
    [[nodiscard]] StudentForm form(const StudentForm& form, int step) const;

private:
    double share_;
    bool size_only_;
    std::uint64_t seed_;
    int steps_;
};

} // namespace lolcats
