#pragma once
/// Arrays in 8 bits, each row with a scale of its own: frozen weights, and activations rounded for products with them.
#include "kernels/views.hpp"
#include "lolcats/float8.hpp"

#include <string>

namespace lolcats {

/// x[i, j] = scales[i] values[i, j]
struct ScaledFloat8 {
    Matrix<Float8> values; ///< [n, m]
    Vector<float> scales;  ///< [n]

    ScaledFloat8() = default;
    ScaledFloat8(Matrix<Float8> values, Vector<float> scales);
    ScaledFloat8(const std::string& label, int rows, int columns);

    /// Rows [first, first + count), not copied.
    [[nodiscard]] ScaledFloat8 rows(int first, int count) const;
};

/// out = x, both [n, m]. A row's scale makes its largest magnitude 448, the type's. NaN stays NaN; infinity makes NaN
/// of its row.
void round_to_float8(const Matrix<float>& x, const ScaledFloat8& out);

/// out[n m] = x. T is float, double or BFloat16, to which it rounds.
template <class T>
void widen(const ScaledFloat8& x, T* out);

} // namespace lolcats
