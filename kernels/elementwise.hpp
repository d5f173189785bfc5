#pragma once
/// Small loops over whole arrays.
#include "kernels/views.hpp"
#include "lolcats/bfloat16.hpp"

namespace lolcats {

/// sums[i] += values[i]; values is [r, c] with its elements in order, sums [r c].
template <class Real>
void add_to(const Vector<double>& sums, const Matrix<Real>& values);

/// sums[h m + i] += values[(b H + h), i] for b = 0 .. B-1 in this order; values is [B H, m].
template <class Real>
void add_over_batch(int batch, int heads, const Matrix<Real>& values, const Vector<double>& sums);

/// a += b, both [n, m].
template <class Real>
void add(const Matrix<Real>& a, const Matrix<Real>& b);

/// a[i, j] += values[j]
template <class Real>
void add_to_rows(const Vector<Real>& values, const Matrix<Real>& a);

/// Prepares c[n, m] for a product that adds to what is there: c = added, which may be one array. False where `added`
/// has no rows: there is nothing to add to.
template <class Real>
bool start_with(const Matrix<Real>& added, const Matrix<Real>& c);

/// Rounds to the nearest bf16 value in place.
template <class Real>
void round_to_bf16(const Matrix<Real>& values);

/// out[i] = in[i], to the nearest bf16 value.
template <class Real>
void narrow(const Real* in, std::size_t count, BFloat16* out);

/// out[i] = in[i]. T: float, or BFloat16.
template <class T, class Real>
void widen(const T* in, std::size_t count, Real* out);

/// Whether all elements are finite.
template <class Real>
bool all_finite(const Matrix<Real>& values);

} // namespace lolcats
