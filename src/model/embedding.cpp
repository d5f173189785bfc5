#include "src/model/embedding.hpp"

#include "kernels/elementwise.hpp"

#include <vector>

namespace lolcats {

void Embedding::rows(std::span<const std::int32_t> tokens, const Matrix<float>& x) {
    if (in_place_) return write(tokens, x);
    if (rounds_) return send<BFloat16>(tokens, x);
    send<float>(tokens, x);
}

template <class T>
void Embedding::gather(std::span<const std::int32_t> tokens, T* out) const {
    for (const std::int32_t token : tokens) {
        checkpoint_.read_rows(embedding_name, shape_, token, 1, out);
        out += shape_[1];
    }
}

void Embedding::write(std::span<const std::int32_t> tokens, const Matrix<float>& x) const {
    if (!rounds_) return gather(tokens, x.data());
    std::vector<BFloat16> row(shape_[1]);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        gather(tokens.subspan(i, 1), row.data());
        for (std::size_t j = 0; j < row.size(); ++j) x.data()[i * row.size() + j] = to_float(row[j]);
    }
}

template <class T>
void Embedding::send(std::span<const std::int32_t> tokens, const Matrix<float>& x) {
    Pinned& staged = staged_[turn_ ^= 1];
    if (staged.extent(0) < x.size() * sizeof(T)) staged = Pinned(uninitialized("embeddings"), x.size() * sizeof(T));
    T* const values = reinterpret_cast<T*>(staged.data());
    gather(tokens, values);
    // After this the device has taken all that was sent before, so that the other memory may be filled next time.
    Execution().fence("embeddings sent before are in place");
    widen(values, x.size(), x.data());
}

} // namespace lolcats
