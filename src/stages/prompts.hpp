#pragma once
/// What generation starts from and where it stops.
#include "lolcats/options.hpp"

#include <cstdint>
#include <filesystem>
#include <set>
#include <vector>

namespace lolcats {

using TokenIds = std::vector<std::int32_t>;

/// Prompts of a file: JSON lines with the ids under "tokens" (other keys are not looked at), or an HDF5 token store, a
/// prompt a row. A token outside the vocabulary, and an empty prompt unless `may_be_empty`, are Errors.
std::vector<TokenIds> read_prompts(const std::filesystem::path& path, int vocab_size, bool may_be_empty);

/// The ids that end a text: --stop-token, or else the eos_token_id of the model's generation_config.json or
/// config.json.
std::set<std::int32_t> stop_tokens(const Options& options, int vocab_size);

} // namespace lolcats
