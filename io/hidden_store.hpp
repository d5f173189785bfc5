#pragma once
/// The residual stream that enters one block, for every training sequence.
///
/// One HDF5 file a block:
///
///     /hidden_states [n, T, D]  bfloat16 (the committed type /bfloat16, a 16-bit floating type) or IEEE f32
///     /checksums     [n]        uint64, XXH3 of the sequence's stored bytes
///     /done          [n]        uint8, 1 once data and checksum are written
///     attributes of /: format_version, model_identity, tokens_identity, layer, block, dtype, gemm, run_deck
///
/// All extents are fixed, all space is reserved when the file is made, and the file is flushed once at that point and
/// only then gets its name, so that a killed writer leaves a file that opens and whose done marks tell what it holds.
#include <mpi.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/hdf5.hpp"
#include "io/write_behind.hpp"
#include "io/writing_ranks.hpp"

namespace lolcats::io {

inline constexpr int hidden_store_format_version = 2;

struct HiddenStoreInfo {
    std::int64_t sequences = 0; ///< n
    std::int64_t length = 0;    ///< T
    std::int64_t width = 0;     ///< D
    DType dtype = DType::bf16;  ///< of the stored states: f32 or bf16
    int block = 0;
    int layer = 0; ///< first layer of the block: the states are what enters it, before its RMSNorm
    std::string model_identity;
    std::string tokens_identity;
    std::string weights_dtype; ///< attribute dtype: type of the frozen weights that the states were computed with
    std::string gemm;          ///< arithmetic of their matrix products
    std::string run_deck;      ///< settings and git hash of the run that made the file; no part of its identity
};

/// What a store's file says about itself. Not a store, or of another format version: Error.
HiddenStoreInfo read_hidden_store_info(const std::filesystem::path& path);

/// Written by all ranks of a communicator; each sequence by one of them.
class HiddenStoreWriter {
public:
    /// Collective. A store of the same identity (every field but run_deck) is reopened and keeps its done marks; any
    /// other file of that name is an Error that says what differs, and left as it is. A new store is made aside and
    /// renamed. Not enough disk space for the whole store is an Error here, if the file system can tell.
    HiddenStoreWriter(const std::filesystem::path& path, const HiddenStoreInfo& info, MPI_Comm comm);
    /// A writer that was not closed leaves its file to MPI_Abort or MPI_Finalize if it has other ranks: closing is
    /// collective, and those ranks may not get here.
    ~HiddenStoreWriter();
    HiddenStoreWriter(const HiddenStoreWriter&) = delete;
    HiddenStoreWriter& operator=(const HiddenStoreWriter&) = delete;

    /// Whether the sequence was stored when the file was opened, or has been by this rank since.
    [[nodiscard]] bool is_done(std::int64_t sequence) const;

    /// Independent. Compares what is stored of a sequence that is done with its checksum. Where they differ, or the
    /// disk does not give it, its done mark is taken back, and the result is false.
    bool verify(std::int64_t sequence);

    /// Independent. states: [T, D]. Converts to the stored type, writes, then the checksum, then the done mark. States
    /// that are not finite in the stored type and failed writes (disk full) are Errors, and leave no done mark.
    void write(std::int64_t sequence, const float* states);

    /// Collective. Everything written is on the disk when it returns; fails on every rank if it fails on one.
    void close();

private:
    void create();
    void create_aside(const std::filesystem::path& aside);
    void reopen();
    void open_datasets();
    void abandon() noexcept;
    void require_space(const std::string& problem) const;
    void put(const hdf5::Dataset& dataset, hid_t type, const Shape& start, const Shape& count, std::int64_t sequence,
             const void* from) const;
    void start_writing(std::int64_t sequence) const;
    void write_prepared(std::int64_t sequence, const void* data, std::uint64_t checksum);

    std::filesystem::path path_;
    HiddenStoreInfo info_;
    WritingRanks ranks_;
    std::vector<std::uint8_t> done_;
    std::vector<BFloat16> buffer_;
    WriteBehind behind_; ///< before file_, so that it goes last: closing any descriptor of a file gives up its locks
    hdf5::File file_;
    hdf5::Datatype type_;
    hdf5::Dataset states_, checksums_, marks_;
};

/// Serial and read-only; each rank opens its own. May be used from several threads at once.
class HiddenStoreReader {
public:
    /// A file that is not the expected store (every field but run_deck) or lacks sequences is an Error that says which
    /// values differ and to run lolcats_hidden again.
    HiddenStoreReader(const std::filesystem::path& path, const HiddenStoreInfo& expected);

    [[nodiscard]] const HiddenStoreInfo& info() const { return info_; }
    [[nodiscard]] std::uint64_t checksum(std::int64_t sequence) const;

    /// out: [T, D]. Bytes that do not match the stored checksum are an Error naming file and sequence.
    void read(std::int64_t sequence, float* out) const;

private:
    void check_complete() const;

    std::filesystem::path path_;
    HiddenStoreInfo info_;
    std::vector<std::uint64_t> checksums_;
    hdf5::File file_;
    hdf5::Datatype type_;
    hdf5::Dataset states_;
};

/// Writes `all`: `/hidden_states` [blocks, n, T, D], a virtual dataset over the block files (by relative path, so the
/// directory can be moved; a file that has gone reads as NaN), and `/layers` int32 [blocks]. `shape` gives n, T, D, the
/// types and the arithmetic that every block file must have.
void write_virtual_dataset(const std::filesystem::path& all, const std::vector<std::filesystem::path>& blocks,
                           const HiddenStoreInfo& shape);

} // namespace lolcats::io
