#include <algorithm>
#include <memory>

#include "io/hidden_layout.hpp"
#include "io/hidden_store.hpp"
#include "io/prepared_states.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {

using namespace hidden_layout;

HiddenStoreReader::HiddenStoreReader(const std::filesystem::path& file, const HiddenStoreInfo& expected) : path_(file) {
    const auto lock = hdf5::lock_library();
    try {
        file_ = hdf5::open_read_only(file);
        info_ = read_info(file_, file);
    } catch (const Error& error) {
        fail("{}; {}", error.what(), rerun);
    }
    if (const auto text = difference(info_, expected); !text.empty()) {
        fail("{}: {}; give the --work of this run, or make it anew: lolcats_hidden --fresh", file.string(), text);
    }
    check_complete();
    checksums_.resize(static_cast<std::size_t>(info_.sequences));
    read_vector(hdf5::open_dataset(file_, file, checksums_name), file, H5T_NATIVE_UINT64, checksums_);
    type_ = element_type(info_.dtype);
    states_ = hdf5::open_dataset(file_, file, states_name);
}

void HiddenStoreReader::check_complete() const {
    std::vector<std::uint8_t> done(static_cast<std::size_t>(info_.sequences));
    read_vector(hdf5::open_dataset(file_, path_, marks_name), path_, H5T_NATIVE_UINT8, done);
    const auto stored = std::count(done.begin(), done.end(), 1);
    if (stored != info_.sequences) {
        fail("{}: {} of {} sequences are stored; {}: it goes on with what is missing", path_.string(), stored,
             info_.sequences, rerun);
    }
}

std::uint64_t HiddenStoreReader::checksum(std::int64_t sequence) const {
    check_sequence(sequence, info_, path_);
    return checksums_[static_cast<std::size_t>(sequence)];
}

void HiddenStoreReader::read(std::int64_t sequence, float* out) const {
    const std::uint64_t expected = checksum(sequence);
    const auto count = static_cast<std::size_t>(info_.length * info_.width);
    const bool narrow = info_.dtype == DType::bf16;
    const auto buffer = narrow ? std::make_unique_for_overwrite<BFloat16[]>(count) : nullptr;
    void* data = narrow ? static_cast<void*>(buffer.get()) : out;
    {
        const auto lock = hdf5::lock_library();
        const Shape extents{1, info_.length, info_.width};
        const auto space = hdf5::select(states_, path_, {sequence, 0, 0}, extents);
        const auto memory = hdf5::make_dataspace(extents);
        if (H5Dread(states_.get(), type_.get(), memory.get(), space.get(), H5P_DEFAULT, data) < 0) {
            const std::string reason = hdf5::take_error();
            fail("{}: cannot read sequence {} ({}); look at the disk, then {} with --verify, which computes such "
                 "sequences again",
                 path_.string(), sequence, reason, rerun);
        }
    }
    if (stored_checksum(data, count * size_of(info_.dtype)) != expected) {
        fail("{}: sequence {} does not match its checksum: the file is damaged; {} with --verify, which computes "
             "such sequences again",
             path_.string(), sequence, rerun);
    }
    if (narrow) convert_elements(DType::bf16, buffer.get(), count, out);
}

} // namespace lolcats::io
