#pragma once
/// The token embedding, which is never loaded whole: rows come straight from the mapped file.
#include "io/checkpoint.hpp"
#include "lolcats/model.hpp"
#include "src/model/uploader.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace lolcats {

inline const std::string embedding_name = "model.embed_tokens.weight";

/// Where the host cannot write the arrays, rows are gathered in pinned memory while the device computes what came
/// before, and are widened as the device takes them from there. One thread at a time.
class Embedding {
public:
    /// Rows are rounded to bf16 unless storage is full. The checkpoint must outlive this.
    Embedding(const io::Checkpoint& checkpoint, const ModelConfig& config, Storage storage,
              bool in_place = Uploader::host_can_write)
        : checkpoint_(checkpoint), shape_{config.vocab_size, config.hidden_size}, rounds_(storage != Storage::full),
          in_place_(in_place) {}

    /// x[n, D], for n token ids of the vocabulary.
    void rows(std::span<const std::int32_t> tokens, const Matrix<float>& x);

private:
    using Pinned = Kokkos::View<unsigned char*, Kokkos::SharedHostPinnedSpace>;

    template <class T>
    void gather(std::span<const std::int32_t> tokens, T* out) const;
    void write(std::span<const std::int32_t> tokens, const Matrix<float>& x) const;
    template <class T>
    void send(std::span<const std::int32_t> tokens, const Matrix<float>& x);

    const io::Checkpoint& checkpoint_;
    io::Shape shape_;
    bool rounds_;
    bool in_place_;
    std::array<Pinned, 2> staged_; ///< one is filled while the device may still read the other
    int turn_ = 0;
};

} // namespace lolcats
