#include "src/stages/block_stream.hpp"

namespace lolcats {

StoredStream::StoredStream(const TransferRun& run, int block, TimeSplit& time) : input_(run.input), time_(time) {
    if (block == 0) return;
    store_.emplace(hidden_path(run.options, block),
                   hidden_store_info(run.options, run.input, run.content, run.arithmetic, block));
    ahead_.emplace([this](const Sequences& sequences, float* out) { read(sequences, out); }, input_.length(),
                   input_.config.hidden_size, run.options.micro_batch);
}

void StoredStream::enter(const Sequences& sequences, const Matrix<float>& x) {
    time_.measure(TimeSplit::files, [&] { ahead_ ? ahead_->fetch(sequences, x) : input_.embed(sequences, x); });
}

void StoredStream::expect(const Sequences& sequences) {
    if (ahead_) ahead_->expect(sequences);
}

void StoredStream::read(const Sequences& sequences, float* out) const {
    const std::size_t size = static_cast<std::size_t>(input_.length()) * input_.config.hidden_size;
    for (std::size_t i = 0; i < sequences.size(); ++i) store_->read(sequences[i], out + i * size);
}

PipelineStream::PipelineStream(const RunInput& input, const Communicator& pipeline, const ArrayTransport& transport,
                               TimeSplit& time)
    : input_(input), pipeline_(pipeline), time_(time),
      link_(pipeline, transport, Flow::forward, residual_wire(input.storage)) {}

void PipelineStream::enter(const Sequences& sequences, const Matrix<float>& x) {
    if (link_.is_first())
        time_.measure(TimeSplit::files, [&] { input_.embed(sequences, x); });
    else
        time_.measure(TimeSplit::wait, [&] { link_.receive_forward(x); });
}

void PipelineStream::leave(const Matrix<float>& x) {
    if (hands_on()) time_.measure(TimeSplit::wait, [&] { link_.send_forward(x); });
}

int PipelineStream::earliest(int step) {
    std::int64_t first = step;
    pipeline_.min(&first, 1);
    return static_cast<int>(first);
}

bool PipelineStream::stops(bool wanted) {
    return time_.measure(TimeSplit::wait, [&] { return link_.pass_on(wanted); });
}

void PipelineStream::close() {
    time_.measure(TimeSplit::wait, [&] { link_.flush(); });
}

} // namespace lolcats
