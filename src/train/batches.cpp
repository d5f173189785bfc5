#include "src/train/batches.hpp"

#include "kernels/random.hpp"
#include "lolcats/error.hpp"
#include "src/block_layout.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

namespace lolcats {

Batches::Batches(const Options& options, std::int64_t total)
    : batch_size_(options.batch_size), shuffle_(options.shuffle), seed_(options.seed) {
    if (options.validation >= total)
        fail("{}: holding out {} of {} sequences leaves none to train on; lower --validation", options.tokens,
             options.validation, total);
    validation_.resize(options.validation);
    std::iota(validation_.begin(), validation_.end(), 0);
    training_.resize(total - options.validation);
    std::iota(training_.begin(), training_.end(), options.validation);
    steps_per_epoch_ = (total - options.validation + batch_size_ - 1) / batch_size_;
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    if (options.steps == 0 && steps_per_epoch_ > most / options.epochs)
        fail("--epochs {}: with {} steps each, more than the {} steps that are counted; lower it, or give --steps",
             options.epochs, steps_per_epoch_, most);
    steps_ = options.steps > 0 ? options.steps : static_cast<int>(options.epochs * steps_per_epoch_);
}

Sequences Batches::epoch_order(int epoch) const {
    Sequences order = training_;
    if (!shuffle_) return order;
    // Fisher-Yates with a hash: the same order with every standard library.
    for (std::size_t i = order.size(); i > 1; --i) {
        const std::uint64_t random = mix_bits(mix_bits(seed_ ^ mix_bits(static_cast<std::uint64_t>(epoch))) + i);
        std::swap(order[i - 1], order[random % i]);
    }
    return order;
}

Sequences Batches::at(int step) const {
    return cut_out(epoch_order(static_cast<int>(step / steps_per_epoch_)), step % steps_per_epoch_);
}

Sequences Batches::cut_out(const Sequences& order, std::int64_t batch) const {
    const std::size_t begin = static_cast<std::size_t>(batch) * batch_size_;
    const std::size_t end = std::min(order.size(), begin + batch_size_);
    return {order.begin() + static_cast<std::ptrdiff_t>(begin), order.begin() + static_cast<std::ptrdiff_t>(end)};
}

int Batches::first_without(const std::vector<std::int32_t>& counts) const {
    const auto has_some = [&](std::int64_t sequence) { return counts[sequence] > 0; };
    if (std::all_of(training_.begin(), training_.end(), has_some)) return steps_;
    Sequences order;
    for (int step = 0; step < steps_; ++step) {
        if (step % steps_per_epoch_ == 0) {
            if (step > 0 && !shuffle_) break; // all epochs are the first one
            order = epoch_order(static_cast<int>(step / steps_per_epoch_));
        }
        const Sequences batch = cut_out(order, step % steps_per_epoch_);
        if (std::none_of(batch.begin(), batch.end(), has_some)) return step;
    }
    return steps_;
}

std::vector<Sequences> micro_batches(const Sequences& batch, int micro_batch, int replicas, int replica) {
    const auto count = (static_cast<std::int64_t>(batch.size()) + micro_batch - 1) / micro_batch;
    const Range mine = share(static_cast<int>(count), replicas, replica);
    std::vector<Sequences> result;
    for (int i = mine.begin; i < mine.end; ++i) {
        const auto begin = batch.begin() + static_cast<std::ptrdiff_t>(i) * micro_batch;
        const auto left = batch.end() - begin;
        result.emplace_back(begin, begin + std::min<std::ptrdiff_t>(micro_batch, left));
    }
    return result;
}

} // namespace lolcats
