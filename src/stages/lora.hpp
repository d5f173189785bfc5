#pragma once
/// Stage 2: low-rank adjusting of the linearised model (paper section 3.2).
#include "lolcats/options.hpp"
#include "src/comm/communicator.hpp"

namespace lolcats {

/// Trains LoRA (and, if asked, the feature maps) with next-token loss over the mesh pipeline x data, and writes
/// WORK/lora in PEFT's layout. Collective.
void adjust_low_rank(const Options& options, const Communicator& world);

} // namespace lolcats
