#pragma once
/// Stage 0: the teacher runs over the tokens, and the residual stream entering each block is stored.
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// Writes WORK/hidden/block_XX.h5 for every block but the first (its input is the token embedding) and
/// WORK/hidden/all.h5 over them. Sequences a store already holds are not computed again. Collective.
void store_hidden_states(const Options& options, const Communicator& world);

} // namespace lolcats
