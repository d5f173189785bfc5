#pragma once
/// Rotary position embedding (arXiv 2104.09864) in the Hugging Face layout: dimension i is rotated with i + d/2.
#include "kernels/views.hpp"
#include "lolcats/model_config.hpp"

#include <optional>
#include <vector>

namespace lolcats {

/// What a model's rotations depend on.
struct RopeForm {
    int head_dim; ///< d
    double theta; ///< pair i turns by theta^(-2 i / d) a token, unless scaled
    std::optional<RopeScaling> scaling;
};

/// Angular frequencies [d/2], scaled where the form says so.
std::vector<double> rope_frequencies(const RopeForm& form);

/// Cosines and sines of position * frequency, [T, d/2] each, computed in double.
template <class Real>
struct RopeTable {
    Matrix<Real> cosine;
    Matrix<Real> sine;

    RopeTable() = default;
    RopeTable(const RopeForm& form, int length);
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
