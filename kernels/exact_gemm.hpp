#pragma once
/// Matrix products with double-precision sums, each element summed over k in one fixed order.
///
/// The result does not depend on the number of threads or on how rows are grouped into calls: Arithmetic::exact
/// (kernels/gemm.hpp), and the only product in double.
#include "kernels/views.hpp"

namespace lolcats {

/// c[m, n] = alpha op(a) op(b) + beta c; op transposes where the flag says so, ld* are elements between stored rows.
template <class Real>
void exact_multiply(bool transpose_a, bool transpose_b, int m, int n, int k, Real alpha, const Real* a, int lda,
                    const Real* b, int ldb, Real beta, Real* c, int ldc);

} // namespace lolcats
