#pragma once
/// What matrix products are of.
namespace lolcats {

/// c[m, n] = op(a)[m, k] op(b)[k, n]
struct ProductShape {
    int m, n, k;
};

/// A stored matrix, `row` elements from one row to the next, that enters a product as it is or transposed.
template <class T>
struct Factor {
    const T* data;
    int row;
    bool transpose;
};

} // namespace lolcats
