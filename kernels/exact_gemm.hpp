#pragma once
/// Matrix products with double-precision sums, each element summed over k in one fixed order.
///
/// The result does not depend on the number of threads or on how rows are grouped into calls: Arithmetic::exact
/// (kernels/gemm.hpp), and the only product in double.
#include "kernels/product_shape.hpp"
#include "kernels/views.hpp"

namespace lolcats {

/// c = alpha op(a) op(b) + beta c, with `c_row` elements from one row of c to the next.
template <class Real>
void exact_multiply(const ProductShape& shape, Real alpha, const Factor<Real>& a, const Factor<Real>& b, Real beta,
                    Real* c, int c_row);

} // namespace lolcats
