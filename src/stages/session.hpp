#pragma once
/// The states of a model at work, in files (io/session_file.hpp) and from there.
#include "io/session_file.hpp"
#include "src/model/recurrent_model.hpp"

#include <vector>

namespace lolcats {

/// The arrays of a student's states, layer by layer: layers.{i}.sums, .feature_sums, .keys, .values.
std::vector<io::SessionArray> session_arrays(const RecurrentModel<float>& model);

/// The state of a slot becomes that of a text.
void save_slot(const RecurrentModel<float>& model, int slot, std::int64_t text, std::int32_t pending,
               io::SessionWriter& writer);

/// The state of a text becomes that of a slot.
void restore_slot(RecurrentModel<float>& model, int slot, std::int64_t text, const io::SessionReader& reader);

} // namespace lolcats
