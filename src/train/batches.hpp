#pragma once
/// Which sequences each optimiser step sees, and which rank computes them.
#include "lolcats/options.hpp"

#include <cstdint>
#include <vector>

namespace lolcats {

using Sequences = std::vector<std::int64_t>;

class Batches {
public:
    /// `total` sequences, of which the first options.validation are held out. Throws Error if none is left to train on,
    /// or options.epochs make more steps than an int counts.
    Batches(const Options& options, std::int64_t total);

    [[nodiscard]] int steps() const { return steps_; }
    /// Sequences of optimiser step `step` (from 0), in order. The last batch of an epoch may be smaller than the
    /// others.
    [[nodiscard]] Sequences at(int step) const;
    [[nodiscard]] const Sequences& validation() const { return validation_; }
    /// The first step whose sequences have `counts` of 0 only, one count a sequence; steps() if there is none.
    [[nodiscard]] int first_without(const std::vector<std::int32_t>& counts) const;

private:
    [[nodiscard]] Sequences epoch_order(int epoch) const;
    [[nodiscard]] Sequences cut_out(const Sequences& order, std::int64_t batch) const;

    int batch_size_;
    int steps_;
    std::int64_t steps_per_epoch_;
    bool shuffle_;
    std::uint64_t seed_;
    Sequences training_;
    Sequences validation_;
};

/// The micro-batches that replica `replica` of `replicas` computes; consecutive ones stay together.
std::vector<Sequences> micro_batches(const Sequences& batch, int micro_batch, int replicas, int replica);

} // namespace lolcats
