#pragma once
/// Where the residual stream that enters a rank's blocks comes from, and where it goes.
#include "io/hidden_store.hpp"
#include "src/comm/stage_link.hpp"
#include "src/stages/block_training.hpp"
#include "src/stages/read_ahead.hpp"
#include "src/stages/run_input.hpp"
#include "src/train/batches.hpp"
#include "src/train/time_split.hpp"

#include <optional>

namespace lolcats {

class BlockStream {
public:
    virtual ~BlockStream() = default;
    /// x[count T, D] that enters the first of the rank's blocks for these sequences.
    virtual void enter(const Sequences& sequences, const Matrix<float>& x) = 0;
    /// The sequences that will probably be the next to enter; none if they are not known.
    virtual void expect(const Sequences& sequences) = 0;
    /// Whether what leaves the last of the rank's blocks goes anywhere.
    [[nodiscard]] virtual bool hands_on() const = 0;
    virtual void leave(const Matrix<float>& x) = 0;
    /// The earliest step that any block on the stream needs; this rank's blocks need `step`.
    virtual int earliest(int step) = 0;
    /// Whether the run stops before the next step, which is the same for all blocks on the stream: what is in flight is
    /// finished first.
    virtual bool stops(bool wanted) = 0;
};

/// One block's input on its own: the token embedding for the first block, else what stage 0 stored.
class StoredStream : public BlockStream {
public:
    /// Throws Error if the store is not that of this run.
    StoredStream(const TransferRun& run, int block, TimeSplit& time);

    void enter(const Sequences& sequences, const Matrix<float>& x) override;
    void expect(const Sequences& sequences) override;
    [[nodiscard]] bool hands_on() const override { return false; }
    void leave(const Matrix<float>&) override {}
    int earliest(int step) override { return step; }
    bool stops(bool wanted) override { return wanted; }

private:
    void read(const Sequences& sequences, float* out) const;

    const RunInput& input_;
    TimeSplit& time_;
    std::optional<io::HiddenStoreReader> store_;
    std::optional<ReadAhead> ahead_; ///< of store_
};

/// The stream as it flows from one pipeline stage to the next; the first stage embeds the tokens. A stage runs ahead of
/// the next one by no more micro-batches than its link holds.
class PipelineStream : public BlockStream {
public:
    /// Collective over `pipeline`.
    PipelineStream(const RunInput& input, const Communicator& pipeline, const ArrayTransport& transport,
                   TimeSplit& time);

    void enter(const Sequences& sequences, const Matrix<float>& x) override;
    void expect(const Sequences&) override {}
    [[nodiscard]] bool hands_on() const override { return !link_.is_last(); }
    void leave(const Matrix<float>& x) override;
    int earliest(int step) override;
    bool stops(bool wanted) override;
    /// Waits until the next stage has received everything.
    void close();
    [[nodiscard]] std::size_t bytes_sent() const { return link_.bytes_sent(); }

private:
    const RunInput& input_;
    const Communicator& pipeline_;
    TimeSplit& time_;
    StageLink link_;
};

} // namespace lolcats
