#pragma once
/// Matrix products in float by the processor's library: oneDNN on the host, cuBLASLt on a GPU. Pointers are to memory
/// of the default execution space.
#include "kernels/product_shape.hpp"
#include "lolcats/bfloat16.hpp"
#include "lolcats/float8.hpp"

#include <cstddef>
#include <memory>

namespace lolcats {

/// Dense rows of 8-bit numbers, each with a scale.
struct ScaledFactor {
    const Float8* data;
    const float* scales;
};

/// Which of a library's algorithms for a shape is taken.
enum class AlgorithmChoice {
    first,  ///< what the library proposes first, which is the same in every run
    fastest ///< the fastest of several that are timed: which one that is, and so the last bits, may differ between runs
};

class Products {
public:
    explicit Products(AlgorithmChoice choice = AlgorithmChoice::first);
    ~Products();
    Products(const Products&) = delete;
    Products& operator=(const Products&) = delete;

    /// Whether the processor has instructions for bf16.
    static bool has_bf16();

    /// c = alpha op(a) op(b) + beta c, with `c_row` elements from one row of c to the next; the row bias[n] is added to
    /// every row unless it is null.
    void multiply(const ProductShape& shape, float alpha, const Factor<float>& a, const Factor<float>& b, float beta,
                  const float* bias, float* c, int c_row);

    /// c = added + op(a) op(b): bf16 factors, sums and c in float; a and c are dense. `added`, dense as c, may be c
    /// itself, or null for 0.
    void multiply(const ProductShape& shape, const Factor<BFloat16>& a, const Factor<BFloat16>& b, const float* added,
                  const float* bias, float* c);

    /// Memory that the library works in, kept from the first product on; 0 on a host.
    static std::size_t workspace_bytes();

    /// Whether there are 8-bit products of this shape: a GPU's are for multiples of 16 only, rows included.
    static bool has_float8(const ProductShape& shape);

    /// Whether 8-bit factors are widened, each into an array that is kept, before they are multiplied: on a host.
    static bool widens_float8();

    /// c = added + a b^T: 8-bit factors a[m, k] and b[n, k], sums and c in float; c is dense, and `added` as above.
    /// Widened factors give what others do but for the rounding of sums.
    void multiply(const ProductShape& shape, const ScaledFactor& a, const ScaledFactor& b, const float* added,
                  float* c);

private:
    struct State;
    std::unique_ptr<State> state_;
};

} // namespace lolcats
