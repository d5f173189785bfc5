#include "io/token_store.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <vector>

#include "io/file.hpp"
#include "lolcats/error.hpp"

namespace lolcats::io {
namespace {

void check_integers(const hdf5::Dataset& dataset, const std::filesystem::path& path, const std::string& name) {
    const hdf5::Datatype type(hdf5::check(H5Dget_type(dataset.get()), path, "read the type of " + name));
    if (H5Tget_class(type.get()) != H5T_INTEGER) fail("{}: {} does not hold integers", path.string(), name);
}

} // namespace

TokenStore::TokenStore(const std::filesystem::path& path, int vocab_size, std::int64_t limit)
    : path_(path), vocab_size_(vocab_size) {
    const auto lock = hdf5::lock_library();
    try {
        open();
    } catch (const Error& error) {
        fail("{}; give an HDF5 file with /tokens, integers [n, T], and /labels of the same shape or none",
             error.what());
    }
    if (limit < 0 || limit > stored_sequences_) {
        fail("{}: {} sequences were asked for, but it holds {}; lower --sequences", path.string(), limit,
             stored_sequences_);
    }
    sequences_ = limit == 0 ? stored_sequences_ : limit;
    if (constexpr auto most = std::numeric_limits<int>::max(); sequences_ > most)
        fail("{}: {} sequences are more than the {} that are counted; use fewer with --sequences", path.string(),
             sequences_, most);
}

void TokenStore::open() {
    const auto& path = path_;
    file_ = hdf5::open_read_only(path);
    tokens_ = hdf5::open_dataset(file_, path, "/tokens");
    check_integers(tokens_, path, "/tokens");
    const Shape shape = hdf5::shape_of(tokens_, path);
    if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[1] > std::numeric_limits<int>::max()) {
        fail("{}: /tokens has shape {}, not [n, T] with n, T > 0", path.string(), to_string(shape));
    }
    stored_sequences_ = shape[0];
    length_ = shape[1];
    labels_ = open_optional("/labels", shape);
    distances_ = open_optional("/distances", shape);
}

/// Empty if the file has no such dataset.
hdf5::Dataset TokenStore::open_optional(const char* name, const Shape& shape) const {
    if (!hdf5::has_dataset(file_, path_, name)) return {};
    hdf5::Dataset dataset = hdf5::open_dataset(file_, path_, name);
    check_integers(dataset, path_, name);
    if (const Shape found = hdf5::shape_of(dataset, path_); found != shape) {
        fail("{}: {} has shape {}, but /tokens has {}", path_.string(), name, to_string(found), to_string(shape));
    }
    return dataset;
}

void TokenStore::read_rows(const hdf5::Dataset& dataset, std::int64_t first, std::int64_t count,
                           std::int32_t* out) const {
    const auto lock = hdf5::lock_library();
    const Shape extents{count, length_};
    const auto space = hdf5::select(dataset, path_, {first, 0}, extents);
    const auto memory = hdf5::make_dataspace(extents);
    hdf5::check_read(H5Dread(dataset.get(), H5T_NATIVE_INT32, memory.get(), space.get(), H5P_DEFAULT, out), path_,
                     "sequence " + std::to_string(first));
}

void TokenStore::check_sequence(std::int64_t sequence) const {
    if (sequence < 0 || sequence >= sequences_) {
        fail("{}: sequence {} was asked for, but {} are in use", path_.string(), sequence, sequences_);
    }
}

void TokenStore::read_tokens(std::int64_t sequence, std::int32_t* out) const {
    check_sequence(sequence);
    read_rows(tokens_, sequence, 1, out);
    check_vocabulary(sequence, out);
}

void TokenStore::check_vocabulary(std::int64_t sequence, const std::int32_t* tokens) const {
    const auto* end = tokens + length_;
    const auto* bad = std::find_if(tokens, end, [&](std::int32_t t) { return t < 0 || t >= vocab_size_; });
    if (bad == end) return;
    fail("{}: sequence {}, position {} holds token {}, outside the model's vocabulary of {}: it was made with another "
         "tokenizer; make it again with the model's",
         path_.string(), sequence, bad - tokens, *bad, vocab_size_);
}

void TokenStore::read_labels(std::int64_t sequence, std::int32_t* out) const {
    if (!has_labels()) return read_tokens(sequence, out);
    check_sequence(sequence);
    read_rows(labels_, sequence, 1, out);
    check_labels(sequence, out);
}

void TokenStore::check_labels(std::int64_t sequence, const std::int32_t* labels) const {
    const auto* end = labels + length_;
    const auto* bad = std::find_if(
        labels, end, [&](std::int32_t label) { return label != ignored_label && (label < 0 || label >= vocab_size_); });
    if (bad == end) return;
    fail("{}: sequence {}, position {} holds label {}, neither {} nor in the model's vocabulary of {}; make the labels "
         "again with the model's tokenizer",
         path_.string(), sequence, bad - labels, *bad, ignored_label, vocab_size_);
}

void TokenStore::read_distances(std::int64_t sequence, std::int32_t* out) const {
    check_sequence(sequence);
    read_rows(distances_, sequence, 1, out);
    for (std::int64_t t = 0; t < length_; ++t)
        if (out[t] < 0 || out[t] > t) {
            fail("{}: sequence {}, position {} holds distance {}, not one from 0 to the position; make the file again",
                 path_.string(), sequence, t, out[t]);
        }
}

std::string TokenStore::identity() const {
    return hash_rows(tokens_, [&](std::int64_t sequence, const std::int32_t* tokens) {
        if (sequence < sequences_) check_vocabulary(sequence, tokens);
    });
}

LabelSummary TokenStore::labels() const {
    LabelSummary summary{"tokens",
                         std::vector(static_cast<std::size_t>(sequences_), static_cast<std::int32_t>(length_ - 1))};
    if (!has_labels()) return summary;
    summary.identity = hash_rows(labels_, [&](std::int64_t sequence, const std::int32_t* labels) {
        if (sequence >= sequences_) return;
        check_labels(sequence, labels);
        const auto unlabelled = std::count(labels + 1, labels + length_, ignored_label);
        summary.counts[static_cast<std::size_t>(sequence)] -= static_cast<std::int32_t>(unlabelled);
    });
    return summary;
}

/// Hands over every row on the way.
std::string TokenStore::hash_rows(const hdf5::Dataset& dataset, const Visitor& visit) const {
    Hash64 hash;
    const std::array shape = {stored_sequences_, length_};
    hash.update(std::as_bytes(std::span(shape)));
    const std::int64_t batch = std::clamp<std::int64_t>((1 << 20) / length_, 1, stored_sequences_);
    std::vector<std::int32_t> values(static_cast<std::size_t>(batch * length_));
    for (std::int64_t first = 0; first < stored_sequences_; first += batch) {
        const std::int64_t count = std::min(batch, stored_sequences_ - first);
        read_rows(dataset, first, count, values.data());
        for (std::int64_t i = 0; i < count; ++i) visit(first + i, values.data() + i * length_);
        hash.update(std::as_bytes(std::span(values).first(static_cast<std::size_t>(count * length_))));
    }
    return to_hex(hash.digest());
}

} // namespace lolcats::io
