#pragma once
/// What a model is adapted with where it is only used, not trained.
#include "src/stages/model_stage.hpp"

namespace lolcats {

/// By --attention, --feature-maps (`maps`, or null) and --adapter; the teacher takes neither, and giving it one is an
/// Error.
Adaptation adaptation(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps);

} // namespace lolcats
