#include "src/stages/transfer_passes.hpp"

#include <algorithm>
#include <deque>

namespace lolcats {

namespace {

class Passes {
public:
    Passes(const TransferRun& run, Range blocks, const std::set<int>& finished, ArrayCommunicator& group,
           BlockStream& stream, Interrupt& interrupt, TimeSplit& time)
        : run_(run), group_(group), stream_(stream), interrupt_(interrupt), time_(time),
          x_(uninitialized("block_input"), run.input.shape(run.options.micro_batch).rows(),
             run.input.config.hidden_size) {
        time.measure(TimeSplit::files, [&] {
            for (int block = blocks.begin; block < blocks.end; ++block)
                blocks_.emplace_back(run, block, finished.contains(block), group, interrupt, time);
        });
    }

    Transferred run() {
        const Batches& batches = run_.batches;
        int start = batches.steps();
        for (const auto& block : blocks_) start = std::min(start, block.start());
        const bool finished = for_each_step(
            run_.options, batches, stream_.earliest(start),
            [&](int step) {
                flow({true, step, batches.at(step)});
            },
            [&](int step) {
                flow({false, step, batches.validation()});
            },
            [&] { return go_on(); });
        result_.stopped = !finished;
        for (auto& block : blocks_) {
            if (finished) block.finish();
            auto first = block.take_first_batch();
            std::move(first.begin(), first.end(), std::back_inserter(result_.first));
        }
        return std::move(result_);
    }

private:
    bool go_on() {
        bool wanted = interrupt_.is_wanted();
        time_.measure(TimeSplit::wait, [&] { wanted = group_.control().any(wanted); });
        const bool stops = stream_.stops(wanted);
        for (auto& block : blocks_) block.before_step(stops);
        return !stops;
    }

    void flow(const Pass& pass) {
        result_.sequences += static_cast<std::int64_t>(pass.batch.size());
        for (auto& block : blocks_) block.begin(pass);
        const auto parts = mine(pass.batch);
        for (std::size_t i = 0; i < parts.size(); ++i)
            flow(parts[i], i + 1 < parts.size() ? parts[i + 1] : first_after(pass));
        for (auto& block : blocks_) block.end();
    }

    [[nodiscard]] std::vector<Sequences> mine(const Sequences& batch) const {
        return micro_batches(batch, run_.options.micro_batch, group_.size(), group_.rank());
    }

    /// What comes after a pass if no evaluation does.
    [[nodiscard]] Sequences first_after(const Pass& pass) const {
        const int step = pass.train ? pass.step + 1 : pass.step;
        if (step >= run_.batches.steps()) return {};
        const auto parts = mine(run_.batches.at(step));
        return parts.empty() ? Sequences() : parts.front();
    }

    void flow(const Sequences& sequences, const Sequences& next) {
        const AttentionShape shape = run_.input.shape(static_cast<int>(sequences.size()));
        const Matrix<float> x = first_rows(x_, shape.rows());
        ++result_.micro_batches;
        stream_.enter(sequences, x);
        stream_.expect(next);
        for (auto& block : blocks_) block.add(shape, x, &block != &blocks_.back() || stream_.hands_on());
        stream_.leave(x);
    }

    const TransferRun& run_;
    ArrayCommunicator& group_;
    BlockStream& stream_;
    Interrupt& interrupt_;
    TimeSplit& time_;
    Matrix<float> x_;
    std::deque<BlockTraining> blocks_;
    Transferred result_;
};

} // namespace

Transferred train_blocks(const TransferRun& run, Range blocks, const std::set<int>& finished, ArrayCommunicator& group,
                         BlockStream& stream, Interrupt& interrupt, TimeSplit& time) {
    return Passes(run, blocks, finished, group, stream, interrupt, time).run();
}

} // namespace lolcats
