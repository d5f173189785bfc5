#pragma once
/// What keeps the student's features, weights and sums away from zero: 1e-12 in each of three formulas.

namespace lolcats {

/// phi(x) = max(activation(x W + b), feature_floor)
template <class Real>
inline constexpr Real feature_floor = Real(1e-12);

/// -sum_i a_i log max(weight_i / sum weight, share_floor), the cross-entropy of the student's weights
template <class Real>
inline constexpr Real share_floor = Real(1e-12);

/// y = sum weight v / (normalizer_floor + sum weight), without near keys
template <class Real>
inline constexpr Real normalizer_floor = Real(1e-12);

} // namespace lolcats
