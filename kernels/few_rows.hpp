#pragma once
/// Products of few rows with a weight, as in decoding, which take as long as reading the weight does.
///
/// The weight is streamed from memory once for all rows, in the type it is kept in. A row's result does not depend on
/// the rows beside it: a sequence gets the same numbers in any batch.
#include "kernels/product_shape.hpp"
#include "lolcats/bfloat16.hpp"
#include "lolcats/float8.hpp"

namespace lolcats {

/// y[m, n] = alpha x[m, k] w[n, k]^T + beta y + bias[n]; *_row are elements between rows. T is float, BFloat16 or
/// Float8.
template <class T>
struct FewRowsProduct {
    ProductShape shape;
    float alpha;
    const float* x;
    int x_row;
    const T* w;
    int w_row;
    const float* w_scales; ///< [n], multiply w's rows; null: none
    float beta;
    const float* bias; ///< null: none
    float* y;
    int y_row;
};

/// Sums are in float, in an order that does not depend on m.
template <class T>
void few_rows_multiply(const FewRowsProduct<T>& product);

} // namespace lolcats
