#pragma once
/// Rotary position embedding in the Hugging Face layout: dimension i is rotated with i + d/2.
#include "kernels/views.hpp"
#include "lolcats/model_config.hpp"

#include <vector>

namespace lolcats {

/// Angular frequencies [d/2] with "llama3" scaling applied where the model has it.
std::vector<double> rope_frequencies(const ModelConfig& config);

/// Cosines and sines of position * frequency, [T, d/2] each, computed in double.
template <class Real>
struct RopeTable {
    Matrix<Real> cosine;
    Matrix<Real> sine;

    RopeTable() = default;
    RopeTable(const ModelConfig& config, int length);
};

/// Fills the table's first rows for these positions, so that row i is that of positions[i].
template <class Real>
void set_positions(const Vector<double>& frequencies, const Vector<int>& positions, int rows,
                   const RopeTable<Real>& table);

enum class Rotation { forward, backward };

/// Rotates x: [B T, heads d] in place, rows being positions 0 .. T-1 of each sequence; backward undoes it, which is
/// also how gradients pass.
template <class Real>
void rotate(const RopeTable<Real>& table, Rotation rotation, int length, int head_dim, const Matrix<Real>& x);

} // namespace lolcats
