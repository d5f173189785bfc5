#pragma once
/// Tokenised text: an HDF5 file with `/tokens`, integers [n, T], and optionally `/labels` and `/distances` of the same
/// shape.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "io/hdf5.hpp"

namespace lolcats::io {

/// Label of a token that takes no part in the next-token loss.
inline constexpr std::int32_t ignored_label = -100;

/// What a file's labels are, and how many there are to learn from.
struct LabelSummary {
    std::string identity;             ///< as TokenStore::identity(); "tokens" if no labels are stored
    std::vector<std::int32_t> counts; ///< of labelled tokens in each sequence in use, but for its first, which nothing
                                      ///< predicts
};

/// Serial and read-only; each rank opens its own. May be used from several threads at once.
class TokenStore {
public:
    /// `limit`: only the first so many sequences (0: all). An Error names what is wrong: not HDF5, no /tokens, not
    /// integers, not two-dimensional, empty, labels or distances of another shape, fewer sequences than `limit`.
    TokenStore(const std::filesystem::path& path, int vocab_size, std::int64_t limit = 0);

    [[nodiscard]] std::int64_t sequences() const { return sequences_; }
    [[nodiscard]] std::int64_t length() const { return length_; }
    [[nodiscard]] bool has_labels() const { return static_cast<bool>(labels_); }
    [[nodiscard]] bool has_distances() const { return static_cast<bool>(distances_); }

    /// out: [length]. A token outside [0, vocabulary) is an Error naming file, sequence, position and value.
    void read_tokens(std::int64_t sequence, std::int32_t* out) const;

    /// out: [length]. The stored labels, each -100 or in the vocabulary; without stored labels, the tokens themselves.
    void read_labels(std::int64_t sequence, std::int32_t* out) const;

    /// out: [length]. How many tokens before each token stands what it repeats, such as the fact that an answer was
    /// told in; 0 where it repeats nothing. One that points before the sequence is an Error.
    void read_distances(std::int64_t sequence, std::int32_t* out) const;

    /// Hex hash of the shape and all tokens of the file, whatever the limit. Streamed: memory stays flat.
    /// Tokens in use are checked as by read_tokens, so that a long run does not stumble on one later.
    [[nodiscard]] std::string identity() const;
    /// All labels, read once. Those in use are checked as by read_labels.
    [[nodiscard]] LabelSummary labels() const;

private:
    using Visitor = std::function<void(std::int64_t sequence, const std::int32_t* values)>;
    [[nodiscard]] std::string hash_rows(const hdf5::Dataset& dataset, const Visitor& visit) const;
    void open();
    [[nodiscard]] hdf5::Dataset open_optional(const char* name, const Shape& shape) const;
    void check_vocabulary(std::int64_t sequence, const std::int32_t* tokens) const;
    void check_labels(std::int64_t sequence, const std::int32_t* labels) const;
    void read_rows(const hdf5::Dataset& dataset, std::int64_t first, std::int64_t count, std::int32_t* out) const;
    void check_sequence(std::int64_t sequence) const;

    std::filesystem::path path_;
    int vocab_size_;
    std::int64_t sequences_ = 0;
    std::int64_t stored_sequences_ = 0;
    std::int64_t length_ = 0;
    hdf5::File file_;
    hdf5::Dataset tokens_;
    hdf5::Dataset labels_;
    hdf5::Dataset distances_;
};

} // namespace lolcats::io
