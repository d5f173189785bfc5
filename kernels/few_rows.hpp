#pragma once
/// Products of few rows with a weight, as in decoding, which take as long as reading the weight does.
///
/// The weight is streamed from memory once for all rows, in the type it is kept in. A row's result does not depend on
/// the rows beside it: a sequence gets the same numbers in any batch.
#include "lolcats/bfloat16.hpp"
#include "lolcats/float8.hpp"

namespace lolcats {

/// y[m, n] = alpha x[m, k] w[n, k]^T + beta y + bias[n] (none if null), sums in float in an order that does not depend
/// on m; *_row are elements between rows. T is float, BFloat16 or Float8; w_scales[n] multiplies w's rows (none if
/// null).
template <class T>
void few_rows_multiply(int m, int n, int k, float alpha, const float* x, int x_row, const T* w, int w_row,
                       const float* w_scales, float beta, const float* bias, float* y, int y_row);

} // namespace lolcats
