#include <unistd.h>

#include <array>

#include "io/disk_space.hpp"
#include "io/fence.hpp"
#include "io/file.hpp"
#include "io/hidden_layout.hpp"
#include "io/hidden_store.hpp"
#include "io/prepared_states.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {

using std::filesystem::path;
using namespace hidden_layout;

namespace {

constexpr const char* contents = "the hidden states";

bool is_only_rank() {
    int ranks = 0;
    return MPI_Comm_size(MPI_COMM_WORLD, &ranks) == MPI_SUCCESS && ranks == 1;
}

/// A program of one rank needs no MPI-IO, which without a launcher keeps files of its own beside the one it writes. As
/// with MPI-IO nothing that is written waits in memory, where a killed program would lose it, and no lock keeps readers
/// away.
void access_alone(const hdf5::PropertyList& access, const path& file) {
    constexpr auto action = "set up writing";
    hdf5::check(H5Pset_cache(access.get(), 0, 0, 0, 0), file, action);
    hdf5::check(H5Pset_sieve_buf_size(access.get(), 0), file, action);
    hdf5::check(H5Pset_file_locking(access.get(), false, true), file, action);
}

hdf5::PropertyList write_access(MPI_Comm comm, const path& file) {
    hdf5::PropertyList access(hdf5::check(H5Pcreate(H5P_FILE_ACCESS), file, "set up writing"));
    if (is_only_rank())
        access_alone(access, file);
    else
        hdf5::check(H5Pset_fapl_mpio(access.get(), comm, MPI_INFO_NULL), file, "set up MPI-IO");
    // Ranks that write neighbouring sequences should not share a page or a lock unit of a parallel file system.
    hdf5::check(H5Pset_alignment(access.get(), hsize_t{4} << 20, hsize_t{1} << 20), file, "align large chunks");
    return access;
}

/// Of a new store. HDF5 cannot close a file whose first flush found no room.
std::uintmax_t file_bytes(const HiddenStoreInfo& info) {
    const auto states = static_cast<std::uintmax_t>(info.length * info.width) * size_of(info.dtype);
    constexpr std::uintmax_t of_file = 16384, of_sequence = 64; // what HDF5 says about them, and the marks
    return of_file + static_cast<std::uintmax_t>(info.sequences) * (states + of_sequence);
}

/// What rank 0 alone meets, as text that it can share.
template <class Action>
std::string find_problem(Action&& action) {
    try {
        action();
        return {};
    } catch (const Error& error) {
        return error.what();
    }
}

/// Why the file is not the store that is wanted, as an error; nothing if it is. Files get their names when they are
/// whole, so that one that cannot be read is damaged, and may still be worth a look.
std::string find_other(const path& file, const HiddenStoreInfo& info) {
    try {
        const auto text = difference(read_hidden_store_info(file), info);
        if (text.empty()) return {};
        return fmt::format("{}: these hidden states are others: {}; give another --work, or replace them with --fresh",
                           file.string(), text);
    } catch (const OtherFormat& error) {
        return fmt::format("{}; give another --work, or replace the hidden states with --fresh", error.what());
    } catch (const Error& error) {
        return fmt::format("{}: it is no store of hidden states, or damaged; delete it to have it made anew",
                           error.what());
    }
}

} // namespace

HiddenStoreWriter::HiddenStoreWriter(const path& file, const HiddenStoreInfo& info, MPI_Comm comm)
    : path_(file), info_(info), ranks_(file, comm) {
    const auto lock = hdf5::lock_library();
    check_info(info, file);
    std::error_code error;
    const bool exists = ranks_.share_flag(ranks_.is_leader() && std::filesystem::exists(file, error));
    const std::string problem = ranks_.from_leader([&] { return exists ? find_other(file, info) : ""; });
    if (!problem.empty()) throw Error(problem);
    done_.assign(static_cast<std::size_t>(info.sequences), 0);
    if (info.dtype == DType::bf16) buffer_.resize(static_cast<std::size_t>(info.length * info.width));
    type_ = element_type(info.dtype);
    try {
        if (exists) {
            reopen();
        } else {
            create();
        }
        require_space(ranks_.from_leader([&] { return reserve(path_, contents); }));
        behind_ = WriteBehind(path_);
    } catch (...) {
        abandon();
        throw;
    }
}

HiddenStoreWriter::~HiddenStoreWriter() {
    abandon();
}

void HiddenStoreWriter::abandon() noexcept {
    if (ranks_.is_alone()) return; // the members close themselves
    static_cast<void>(states_.release());
    static_cast<void>(checksums_.release());
    static_cast<void>(marks_.release());
    static_cast<void>(file_.release());
}

void HiddenStoreWriter::create() {
    require_space(ranks_.from_leader([&] { return find_shortage(path_, file_bytes(info_), contents); }));
    const path aside = ranks_.from_leader([&] { return temporary_name(path_).string(); });
    std::string problem;
    try {
        create_aside(aside);
        if (ranks_.is_leader()) problem = find_problem([&] { publish_file(aside, path_); });
    } catch (...) {
        if (ranks_.is_leader()) ::unlink(aside.c_str());
        throw;
    }
    if (problem = ranks_.share_text(problem); problem.empty()) return;
    if (ranks_.is_leader()) ::unlink(aside.c_str());
    throw Error(problem);
}

void HiddenStoreWriter::create_aside(const path& aside) {
    const auto access = write_access(ranks_.comm(), path_);
    file_ = hdf5::File(H5Fcreate(aside.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
    if (!file_) {
        const std::string reason = hdf5::take_error();
        fail("{}: cannot create it ({}){}; check --work and its permissions, look at the disk, then {}", path_.string(),
             reason, free_space_hint(path_), rerun);
    }
    lay_out(file_, path_, info_);
    open_datasets();
    // From here on only raw data is written, so a file whose writer is killed can be opened.
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0) {
        const std::string reason = hdf5::take_error();
        fail("{}: cannot bring it to disk ({}){}; free space, or look at the disk, then {}", path_.string(), reason,
             free_space_hint(path_), rerun);
    }
}

void HiddenStoreWriter::reopen() {
    const auto access = write_access(ranks_.comm(), path_);
    file_ = hdf5::File(hdf5::check(H5Fopen(path_.c_str(), H5F_ACC_RDWR, access.get()), path_, "reopen it"));
    open_datasets();
    read_vector(marks_, path_, H5T_NATIVE_UINT8, done_);
}

void HiddenStoreWriter::open_datasets() {
    states_ = hdf5::open_dataset(file_, path_, states_name);
    checksums_ = hdf5::open_dataset(file_, path_, checksums_name);
    marks_ = hdf5::open_dataset(file_, path_, marks_name);
}

void HiddenStoreWriter::require_space(const std::string& problem) const {
    if (!problem.empty())
        fail("{}: {}; free space, look at the disk, or store the states elsewhere, then {}", path_.string(), problem,
             rerun);
}

bool HiddenStoreWriter::is_done(std::int64_t sequence) const {
    check_sequence(sequence, info_, path_);
    return done_[static_cast<std::size_t>(sequence)] == 1;
}

void HiddenStoreWriter::write(std::int64_t sequence, const float* states) {
    check_sequence(sequence, info_, path_);
    if (!file_) fail("{}: is already closed", path_.string());
    const auto count = static_cast<std::size_t>(info_.length * info_.width);
    const bool narrow = info_.dtype == DType::bf16;
    const PreparedStates prepared =
        narrow ? prepare_states(states, count, buffer_.data()) : prepare_states(states, count);
    if (!prepared.finite) {
        fail("{}: the hidden states of sequence {} are not finite as {}: the model overflows on it; leave the sequence "
             "out or use another dtype",
             path_.string(), sequence, name_of(info_.dtype));
    }
    write_prepared(sequence, narrow ? static_cast<const void*>(buffer_.data()) : states, prepared.checksum);
    done_[static_cast<std::size_t>(sequence)] = 1;
}

void HiddenStoreWriter::write_prepared(std::int64_t sequence, const void* data, std::uint64_t checksum) {
    const std::uint8_t mark = 1;
    require_current_attempt();
    put(states_, type_.get(), {sequence, 0, 0}, {1, info_.length, info_.width}, sequence, data);
    start_writing(sequence);
    put(checksums_, H5T_NATIVE_UINT64, {sequence}, {1}, sequence, &checksum);
    put(marks_, H5T_NATIVE_UINT8, {sequence}, {1}, sequence, &mark);
}

void HiddenStoreWriter::start_writing(std::int64_t sequence) const {
    const auto lock = hdf5::lock_library();
    const std::int64_t rows = chunk_rows(info_);
    for (std::int64_t row = 0; row < info_.length; row += rows) {
        const std::array<hsize_t, 3> chunk = {static_cast<hsize_t>(sequence), static_cast<hsize_t>(row), 0};
        unsigned filters = 0;
        haddr_t address = 0;
        hsize_t bytes = 0;
        hdf5::check(H5Dget_chunk_info_by_coord(states_.get(), chunk.data(), &filters, &address, &bytes), path_,
                    "find where sequence " + std::to_string(sequence) + " is stored");
        behind_.start(address, bytes);
    }
}

void HiddenStoreWriter::put(const hdf5::Dataset& dataset, hid_t type, const Shape& start, const Shape& count,
                            std::int64_t sequence, const void* from) const {
    const auto lock = hdf5::lock_library();
    const auto space = hdf5::select(dataset, path_, start, count);
    const auto memory = hdf5::make_dataspace(count);
    // A write that does only a part is none that failed, but MPI libraries report it so: it is made again.
    constexpr int tries = 3;
    std::string reason;
    for (int i = 0; i < tries; ++i) {
        if (H5Dwrite(dataset.get(), type, memory.get(), space.get(), H5P_DEFAULT, from) >= 0) return;
        reason = hdf5::take_error();
    }
    fail("{}: cannot write sequence {} ({}){}; free space, or look at the disk, then {}: it goes on with what is "
         "missing",
         path_.string(), sequence, reason, free_space_hint(path_), rerun);
}

bool HiddenStoreWriter::verify(std::int64_t sequence) {
    if (!is_done(sequence)) return true;
    const auto lock = hdf5::lock_library();
    std::vector<std::byte> data(static_cast<std::size_t>(info_.length * info_.width) * size_of(info_.dtype));
    std::uint64_t checksum = 0;
    const auto get = [&](const hdf5::Dataset& dataset, hid_t type, const Shape& start, const Shape& count, void* to) {
        const auto space = hdf5::select(dataset, path_, start, count);
        const auto memory = hdf5::make_dataspace(count);
        if (H5Dread(dataset.get(), type, memory.get(), space.get(), H5P_DEFAULT, to) >= 0) return true;
        hdf5::take_error();
        return false;
    };
    // Where the disk does not give the sequence, writing it anew is the way to get it.
    if (get(states_, type_.get(), {sequence, 0, 0}, {1, info_.length, info_.width}, data.data()) &&
        get(checksums_, H5T_NATIVE_UINT64, {sequence}, {1}, &checksum) &&
        stored_checksum(data.data(), data.size()) == checksum) {
        return true;
    }
    const std::uint8_t mark = 0;
    require_current_attempt();
    put(marks_, H5T_NATIVE_UINT8, {sequence}, {1}, sequence, &mark);
    done_[static_cast<std::size_t>(sequence)] = 0;
    return false;
}

void HiddenStoreWriter::close() {
    if (!file_) fail("{}: is already closed", path_.string());
    const auto lock = hdf5::lock_library();
    std::string error;
    const auto note = [&](herr_t result) {
        if (result < 0) error = hdf5::take_error();
    };
    note(H5Fflush(file_.get(), H5F_SCOPE_GLOBAL));
    note(states_.close());
    note(checksums_.close());
    note(marks_.close());
    note(file_.close());
    if (ranks_.any(!error.empty())) {
        fail("{}: cannot bring it to disk ({}){}; free space, or look at the disk, then {}", path_.string(),
             error.empty() ? "on another rank" : error, free_space_hint(path_), rerun);
    }
}

} // namespace lolcats::io
