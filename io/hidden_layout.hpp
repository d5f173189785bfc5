#pragma once
/// What the writer, the readers and the virtual dataset must agree on about a hidden-state file. Internal to io/.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/hdf5.hpp"
#include "io/hidden_store.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io::hidden_layout {

inline constexpr const char* states_name = "/hidden_states";
inline constexpr const char* checksums_name = "/checksums";
inline constexpr const char* marks_name = "/done";
inline constexpr const char* rerun = "run lolcats_hidden again";

/// A store that another version of the programs wrote.
class OtherFormat : public Error {
public:
    using Error::Error;
};

/// An Error if no store can have this shape and type.
void check_info(const HiddenStoreInfo& info, const std::filesystem::path& file);

/// An Error if the store has no such sequence.
void check_sequence(std::int64_t sequence, const HiddenStoreInfo& info, const std::filesystem::path& file);

/// Rows of one chunk: a whole sequence, or the largest divisor of it that stays below half a gigabyte.
std::int64_t chunk_rows(const HiddenStoreInfo& info);

/// The type in memory and in the file; they must be the same, see make_bfloat16_type().
hdf5::Datatype element_type(DType dtype);

/// The first difference between two stores' identities, as text; empty if there is none.
std::string difference(const HiddenStoreInfo& found, const HiddenStoreInfo& wanted);

/// Creates in a new file all that read_info() reads, and the datasets. Collective over the ranks that opened it.
void lay_out(const hdf5::File& file, const std::filesystem::path& name, const HiddenStoreInfo& info);

/// What the open file says about itself; anything that is not as it should be is an Error, of which OtherFormat is one.
HiddenStoreInfo read_info(const hdf5::File& file, const std::filesystem::path& name);

/// All of /checksums or /done, to a vector of the store's length. `type` is that of T.
template <class T>
void read_vector(const hdf5::Dataset& dataset, const std::filesystem::path& file, hid_t type, std::vector<T>& out) {
    hdf5::check_read(H5Dread(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()), file, "its marks");
}

} // namespace lolcats::io::hidden_layout
