#pragma once
/// Which layers keep their softmax attention in stage 2 and after it.
#include "lolcats/model_config.hpp"
#include "lolcats/options.hpp"
#include "src/model/students.hpp"

#include <set>
#include <string>

namespace lolcats {

/// Those of --softmax-layers; else those of `adapter`, a directory or "" for none, which says what it was trained with;
/// else as many as --keep-softmax-layers says, of the highest transfer loss at the best evaluation (or the last step,
/// where none was held out) in the logs that stage 1 left beside `maps`. What an option and the adapter say differently
/// is an Error, and so are numbers that are no layer's, both options at once and logs that are missing.
std::set<int> softmax_layers(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps,
                             const std::string& adapter);

/// "0,3", and from there. An Error names `where` if it is no such list.
std::string to_text(const std::set<int>& layers);
std::set<int> layers_from_text(const std::string& text, const std::string& where);

} // namespace lolcats
