#pragma once
/// Frozen weights from a checkpoint: a rank reads only the layers it owns.
#include "io/checkpoint.hpp"
#include "lolcats/model.hpp"

#include <span>

namespace lolcats {

/// The type frozen matrices are kept in.
enum class Storage { full, bf16 };

/// Throws Error for a name other than f32 and bf16.
Storage storage_type(const std::string& dtype);

template <class Real>
LayerWeights<Real> load_layer(const io::Checkpoint& checkpoint, const ModelConfig& config, int layer, Storage storage);

template <class Real>
HeadWeights<Real> load_head(const io::Checkpoint& checkpoint, const ModelConfig& config, Storage storage);

/// x[n, D]: rows of the token embedding, straight from the mapped file. With bf16 storage they are rounded to it.
template <class Real>
void embed(const io::Checkpoint& checkpoint, const ModelConfig& config, Storage storage,
           std::span<const std::int32_t> tokens, const Matrix<Real>& x);

} // namespace lolcats
