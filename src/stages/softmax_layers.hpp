#pragma once
/// Which layers keep their softmax attention in stage 2 and after it.
#include "lolcats/model_config.hpp"
#include "lolcats/options.hpp"
#include "src/model/students.hpp"

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace lolcats {

/// Those of --softmax-layers; else those of `adapter`, a directory or "" for none, which says what it was trained with;
/// else as many as --keep-softmax-layers says, of the highest transfer loss that `maps` say they were trained to
/// (loss_metadata), or, of a file that does not, the log that stage 1 left beside it. What an option and the adapter
/// say differently is an Error, and so are numbers that are no layer's, both options at once and losses that are
/// missing.
std::set<int> softmax_layers(const Options& options, const ModelConfig& config, const FeatureMapFiles* maps,
                             const std::string& adapter);

/// Losses of a block's layers in the line of a log that counts: the lowest evaluation's, else the last step's.
std::vector<double> layer_losses(const std::filesystem::path& log);

/// The same for the metadata of the maps that were trained to them, a pair a layer of the model: a log may be begun
/// anew beside maps that stay. `first`: the block's first layer.
std::map<std::string, std::string> loss_metadata(int first, const std::vector<double>& losses);

/// "0,3", and from there. An Error names `where` if it is no such list.
std::string to_text(const std::set<int>& layers);
std::set<int> layers_from_text(const std::string& text, const std::string& where);

} // namespace lolcats
