#pragma once
/// Frozen weights: a rank has only the layers it owns, and reads them or gets them from one that does.
#include "io/checkpoint.hpp"
#include "lolcats/model.hpp"
#include "src/block_layout.hpp"

#include <cstddef>
#include <vector>

namespace lolcats {

/// Throws Error for a name other than f32, bf16 and fp8.
Storage storage_type(const std::string& dtype);

/// Takes arrays from the one rank that reads them to the others that load the same weights.
class WeightSharing {
public:
    virtual ~WeightSharing() = default;
    [[nodiscard]] virtual bool is_reader() const = 0;
    /// Begins to bring `bytes` of the reader's array to those of the others. All ranks call it for the same arrays in
    /// the same order.
    virtual void hand_out(void* array, std::size_t bytes) = 0;
    /// Returns when all that was handed out is there.
    virtual void finish() = 0;
};

/// Where frozen weights come from: this rank reads the checkpoint itself, or one that reads it for several shares them.
struct WeightSource {
    WeightSource(const io::Checkpoint& checkpoint, WeightSharing* sharing = nullptr) // NOLINT: one is the other
        : checkpoint(checkpoint), sharing(sharing) {}

    [[nodiscard]] bool reads() const { return sharing == nullptr || sharing->is_reader(); }

    const io::Checkpoint& checkpoint;
    WeightSharing* sharing; ///< none: each rank reads for itself
};

/// Collective over the ranks that share the source, as is load_head.
template <class Real>
LayerWeights<Real> load_layer(const WeightSource& source, const ModelConfig& config, int layer, Storage storage);

/// Those of consecutive layers, in order.
template <class Real>
std::vector<LayerWeights<Real>> load_layers(const WeightSource& source, const ModelConfig& config, Range layers,
                                            Storage storage);

template <class Real>
HeadWeights<Real> load_head(const WeightSource& source, const ModelConfig& config, Storage storage);

} // namespace lolcats
