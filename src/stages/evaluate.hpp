#pragma once
/// Evaluation of the teacher or an adapted model on a token store.
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// Prints one JSON object on the stdout of rank 0: loss (mean next-token cross-entropy over labelled tokens),
/// perplexity, tokens, exact_match (share of the runs of consecutive labelled tokens that are all predicted by arg-max)
/// and spans. With --save-logits writes /logits [n, T, V].
///
/// Where the tokens have /distances: by_distance, the same by how far back a run's first token stands, in doublings of
/// the window. With --attention-mass: attention_mass, by layer the mean share of far keys in the student's attention
/// and the one that softmax of the same queries and keys would give them, over queries that have far keys. --branch
/// computes all of this with a part of the student's attention (kernels/branch_attention.hpp). Collective.
void evaluate_model(const Options& options, const Communicator& world);

} // namespace lolcats
