#pragma once
/// One-forward-one-backward pipeline schedule (1F1B).
#include <algorithm>

namespace lolcats {

/// Calls forward(i) and backward(i) for 0 <= i < micro_batches on the stage `stage` of `stages`. At most stages - stage
/// micro-batches are between their two calls at any time.
template <class Forward, class Backward>
void run_one_forward_one_backward(int stage, int stages, int micro_batches, Forward&& forward, Backward&& backward) {
    const int warm_up = std::min(stages - stage - 1, micro_batches);
    for (int i = 0; i < warm_up; ++i) forward(i);
    for (int i = warm_up; i < micro_batches; ++i) { // steady
        forward(i);
        backward(i - warm_up);
    }
    for (int i = micro_batches - warm_up; i < micro_batches; ++i) backward(i); // cool-down
}

} // namespace lolcats
