#include "io/hidden_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>

#include "io/fence.hpp"
#include "io/file.hpp"
#include "io/hidden_layout.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

using std::filesystem::path;
using namespace hidden_layout;

void check_mpi(int result, const path& file, const char* action) {
    if (result == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(result, text.data(), &length);
    fail("{}: cannot {} between the ranks ({})", file.string(), action, text.data());
}

int rank_of(MPI_Comm comm, const path& file) {
    int rank = 0;
    check_mpi(MPI_Comm_rank(comm, &rank), file, "find the rank");
    return rank;
}

/// Rows of one chunk: a whole sequence, or the largest divisor of it that stays below half a gigabyte.
std::int64_t chunk_rows(const HiddenStoreInfo& info) {
    constexpr std::int64_t largest = std::int64_t{512} << 20;
    const auto row_bytes = info.width * static_cast<std::int64_t>(size_of(info.dtype));
    std::int64_t parts = 1;
    while (parts < info.length && (info.length % parts != 0 || info.length / parts * row_bytes > largest)) ++parts;
    return info.length / parts;
}

hdf5::PropertyList parallel_access(MPI_Comm comm, const path& file) {
    hdf5::PropertyList access(hdf5::check(H5Pcreate(H5P_FILE_ACCESS), file, "set up MPI-IO"));
    hdf5::check(H5Pset_fapl_mpio(access.get(), comm, MPI_INFO_NULL), file, "set up MPI-IO");
    // Ranks that write neighbouring sequences should not share a page or a lock unit of a parallel file system.
    hdf5::check(H5Pset_alignment(access.get(), hsize_t{4} << 20, hsize_t{1} << 20), file, "align large chunks");
    return access;
}

void create_dataset(const hdf5::File& file, const path& name, const char* dataset, hid_t type, const Shape& shape,
                    const Shape& chunk) {
    const std::string action = std::string("create ") + dataset;
    const auto creation = hdf5::untimed_dataset(name);
    hdf5::check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), name, action);
    if (!chunk.empty()) {
        const std::vector<hsize_t> extents(chunk.begin(), chunk.end());
        hdf5::check(H5Pset_chunk(creation.get(), static_cast<int>(extents.size()), extents.data()), name, action);
        hdf5::check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), name, action);
    }
    const auto space = hdf5::make_dataspace(shape);
    const hdf5::Dataset created(hdf5::check(
        H5Dcreate2(file.get(), dataset, type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), name, action));
}

/// Asks the file system for the space of the whole file, which a flush has given its full size but no blocks. Text of
/// the error, or nothing.
std::string reserve(const path& file) {
    const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    struct stat status {};
    int result = fd < 0 ? -1 : ::fstat(fd, &status);
    if (result == 0) {
        do {
            result = ::fallocate(fd, 0, 0, status.st_size);
        } while (result != 0 && errno == EINTR);
    }
    const int error = errno;
    if (fd >= 0) ::close(fd);
    // File systems that cannot reserve say so; there a full disk shows when a sequence is written.
    if (result == 0 || error == EOPNOTSUPP || error == ENOSYS) return {};
    return fmt::format("cannot reserve the {} bytes of the hidden states: {}{}", status.st_size, std::strerror(error),
                       free_space_hint(file));
}

/// Says so if the file system has no room for a new store. HDF5 cannot close a file whose first flush found none.
std::string find_shortage(const path& file, const HiddenStoreInfo& info) {
    std::error_code error;
    const auto space = std::filesystem::space(file.parent_path(), error);
    const auto states = static_cast<std::uintmax_t>(info.length * info.width) * size_of(info.dtype);
    constexpr std::uintmax_t of_file = 16384, of_sequence = 64; // what HDF5 says about them, and the marks
    const auto bytes = of_file + static_cast<std::uintmax_t>(info.sequences) * (states + of_sequence);
    if (error || space.available >= bytes) return {};
    return fmt::format("no room for the {} bytes of the hidden states: {}{}", bytes, std::strerror(ENOSPC),
                       free_space_hint(file));
}

/// Rank 0's text on every rank.
std::string share_text(std::string text, MPI_Comm comm, const path& file) {
    auto size = static_cast<int>(text.size());
    check_mpi(MPI_Bcast(&size, 1, MPI_INT, 0, comm), file, "share a status");
    text.resize(static_cast<std::size_t>(size));
    check_mpi(MPI_Bcast(text.data(), size, MPI_CHAR, 0, comm), file, "share a status");
    return text;
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
    } catch (const Error& error) {
        return fmt::format("{}: it is no store of hidden states, or damaged; delete it to have it made anew",
                           error.what());
    }
}

template <class T>
void read_vector(const hdf5::Dataset& dataset, const path& file, hid_t type, std::vector<T>& out) {
    hdf5::check_read(H5Dread(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()), file, "its marks");
}

void check_sequence(std::int64_t sequence, const HiddenStoreInfo& info, const path& file) {
    if (sequence < 0 || sequence >= info.sequences) {
        fail("{}: sequence {} was asked for, but it has {}", file.string(), sequence, info.sequences);
    }
}

std::uint64_t checksum_of(const void* data, std::size_t bytes) {
    return hash64({static_cast<const std::byte*>(data), bytes});
}

struct Prepared {
    bool finite;
    std::uint64_t checksum;
};

/// Calls tile(offset, size) for pieces that stay in a core's cache from one look at them to the next.
template <class Tile>
Prepared prepare_tiles(std::size_t count, Tile&& tile) {
    constexpr std::size_t largest = 32768;
    Hash64 hash;
    bool finite = true;
    for (std::size_t i = 0; i < count; i += largest) {
        const auto stored = tile(i, std::min(largest, count - i));
        finite = finite && all_finite(stored.data(), stored.size());
        hash.update(std::as_bytes(stored));
    }
    return {finite, hash.digest()};
}

Prepared prepare(const float* states, std::size_t count) {
    return prepare_tiles(count, [&](std::size_t i, std::size_t n) { return std::span(states + i, n); });
}

/// What is not finite stays so when it is rounded, and what overflows joins it.
Prepared prepare(const float* states, std::size_t count, BFloat16* rounded) {
    return prepare_tiles(count, [&](std::size_t i, std::size_t n) {
        convert_elements(DType::f32, states + i, n, rounded + i);
        return std::span<const BFloat16>(rounded + i, n);
    });
}

} // namespace

HiddenStoreWriter::HiddenStoreWriter(const path& file, const HiddenStoreInfo& info, MPI_Comm comm)
    : path_(file), info_(info), comm_(comm) {
    const auto lock = hdf5::lock_library();
    check_info(info, file);
    int ranks = 0;
    check_mpi(MPI_Comm_size(comm, &ranks), file, "count the ranks");
    alone_ = ranks == 1;
    std::error_code error;
    int exists = rank_of(comm, file) == 0 && std::filesystem::exists(file, error) ? 1 : 0;
    check_mpi(MPI_Bcast(&exists, 1, MPI_INT, 0, comm), file, "share a status");
    const bool asks = exists != 0 && rank_of(comm, file) == 0;
    const std::string problem = share_text(asks ? find_other(file, info) : "", comm, file);
    if (!problem.empty()) throw Error(problem);
    done_.assign(static_cast<std::size_t>(info.sequences), 0);
    if (info.dtype == DType::bf16) buffer_.resize(static_cast<std::size_t>(info.length * info.width));
    type_ = element_type(info.dtype);
    try {
        if (exists != 0) {
            reopen();
        } else {
            create();
        }
        reserve_space();
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
    if (alone_) return; // the members close themselves
    static_cast<void>(states_.release());
    static_cast<void>(checksums_.release());
    static_cast<void>(marks_.release());
    static_cast<void>(file_.release());
}

void HiddenStoreWriter::create() {
    const bool leads = rank_of(comm_, path_) == 0;
    const std::string shortage = share_text(leads ? find_shortage(path_, info_) : "", comm_, path_);
    if (!shortage.empty())
        fail("{}: {}; free space, look at the disk, or store the states elsewhere, then {}", path_.string(), shortage,
             rerun);
    const path aside = share_text(leads ? temporary_name(path_).string() : "", comm_, path_);
    std::string problem;
    try {
        create_aside(aside);
        problem = leads ? find_problem([&] { publish_file(aside, path_); }) : "";
    } catch (...) {
        if (leads) ::unlink(aside.c_str());
        throw;
    }
    if (problem = share_text(problem, comm_, path_); problem.empty()) return;
    if (leads) ::unlink(aside.c_str());
    throw Error(problem);
}

void HiddenStoreWriter::create_aside(const path& aside) {
    const auto access = parallel_access(comm_, path_);
    file_ = hdf5::File(H5Fcreate(aside.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
    if (!file_) {
        const std::string reason = hdf5::take_error();
        fail("{}: cannot create it ({}){}; check --work and its permissions, then {}", path_.string(), reason,
             free_space_hint(path_), rerun);
    }
    // Not type_: a committed type belongs to the file, and the file cannot be closed while one is open.
    const auto stored_type = element_type(info_.dtype);
    if (info_.dtype == DType::bf16) {
        hdf5::check(H5Tcommit2(file_.get(), "/bfloat16", stored_type.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    path_, "name the type bfloat16");
    }
    const Shape shape{info_.sequences, info_.length, info_.width};
    create_dataset(file_, path_, states_name, stored_type.get(), shape, {1, chunk_rows(info_), info_.width});
    create_dataset(file_, path_, checksums_name, H5T_STD_U64LE, {info_.sequences}, {});
    create_dataset(file_, path_, marks_name, H5T_STD_U8LE, {info_.sequences}, {});
    hdf5::write_attribute(file_, path_, "format_version", std::int64_t{hidden_store_format_version});
    hdf5::write_attribute(file_, path_, "model_identity", info_.model_identity);
    hdf5::write_attribute(file_, path_, "tokens_identity", info_.tokens_identity);
    hdf5::write_attribute(file_, path_, "layer", std::int64_t{info_.layer});
    hdf5::write_attribute(file_, path_, "block", std::int64_t{info_.block});
    hdf5::write_attribute(file_, path_, "run_deck", info_.run_deck);
    open_datasets();
    // From here on only raw data is written, so a file whose writer is killed can be opened.
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0) {
        const std::string reason = hdf5::take_error();
        fail("{}: cannot bring it to disk ({}){}; free space, or look at the disk, then {}", path_.string(), reason,
             free_space_hint(path_), rerun);
    }
}

void HiddenStoreWriter::reopen() {
    const auto access = parallel_access(comm_, path_);
    file_ = hdf5::File(hdf5::check(H5Fopen(path_.c_str(), H5F_ACC_RDWR, access.get()), path_, "reopen it"));
    open_datasets();
    read_vector(marks_, path_, H5T_NATIVE_UINT8, done_);
}

void HiddenStoreWriter::open_datasets() {
    states_ = hdf5::open_dataset(file_, path_, states_name);
    checksums_ = hdf5::open_dataset(file_, path_, checksums_name);
    marks_ = hdf5::open_dataset(file_, path_, marks_name);
}

void HiddenStoreWriter::reserve_space() {
    const std::string error = share_text(rank_of(comm_, path_) == 0 ? reserve(path_) : "", comm_, path_);
    if (!error.empty())
        fail("{}: {}; free space, look at the disk, or store the states elsewhere, then {}", path_.string(), error,
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
    const Prepared prepared = narrow ? prepare(states, count, buffer_.data()) : prepare(states, count);
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
        checksum_of(data.data(), data.size()) == checksum) {
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
    int failed = error.empty() ? 0 : 1;
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, comm_), path_, "share a status");
    if (failed != 0) {
        fail("{}: cannot bring it to disk ({}){}; free space, or look at the disk, then {}", path_.string(),
             error.empty() ? "on another rank" : error, free_space_hint(path_), rerun);
    }
}

HiddenStoreReader::HiddenStoreReader(const path& file, const HiddenStoreInfo& expected) : path_(file) {
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
    if (checksum_of(data, count * size_of(info_.dtype)) != expected) {
        fail("{}: sequence {} does not match its checksum: the file is damaged; {} with --verify, which computes "
             "such sequences again",
             path_.string(), sequence, rerun);
    }
    if (narrow) convert_elements(DType::bf16, buffer.get(), count, out);
}

} // namespace lolcats::io
