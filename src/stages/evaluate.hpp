#pragma once
/// Evaluation of the teacher or an adapted model on a token store.
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// Prints one JSON object on the stdout of rank 0: loss (mean next-token cross-entropy over labelled tokens),
/// perplexity, tokens, exact_match (share of the runs of consecutive labelled tokens that are all predicted by arg-max)
/// and spans. With --save-logits writes /logits [n, T, V]. Collective.
void evaluate_model(const Options& options, const Communicator& world);

} // namespace lolcats
