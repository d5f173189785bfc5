#pragma once
/// What the writer, the readers and the virtual dataset must agree on about a hidden-state file. Internal to io/.
#include <filesystem>
#include <string>

#include "io/hdf5.hpp"
#include "io/hidden_store.hpp"

namespace lolcats::io::hidden_layout {

inline constexpr const char* states_name = "/hidden_states";
inline constexpr const char* checksums_name = "/checksums";
inline constexpr const char* marks_name = "/done";
inline constexpr const char* rerun = "run lolcats_hidden again";

/// An Error if no store can have this shape and type.
void check_info(const HiddenStoreInfo& info, const std::filesystem::path& file);

/// The type in memory and in the file; they must be the same, see make_bfloat16_type().
hdf5::Datatype element_type(DType dtype);

/// The first difference between two stores' identities, as text; empty if there is none.
std::string difference(const HiddenStoreInfo& found, const HiddenStoreInfo& wanted);

/// What the open file says about itself; anything that is not as it should be is an Error.
HiddenStoreInfo read_info(const hdf5::File& file, const std::filesystem::path& name);

} // namespace lolcats::io::hidden_layout
