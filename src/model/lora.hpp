#pragma once
/// Low-rank updates of a projection (LoRA): y = x W^T + (alpha / r) dropout(x) A^T B^T.
#include "lolcats/model.hpp"

namespace lolcats {

/// Scratch of the low-rank products of one micro-batch of n rows.
template <class Real>
struct LoraScratch {
    Matrix<Real> low;          ///< [n, r]
    Matrix<Real> low_gradient; ///< [n, r]
    Matrix<Real> dropped;      ///< [n, max inputs], allocated only with dropout
    Matrix<Real> a_gradient;   ///< [r, max inputs]
    Matrix<Real> b_gradient;   ///< [max outputs, r]

    LoraScratch() = default;
    LoraScratch(const LoraForm& form, int rows, int widest);
};

/// What a low-rank product needs beside its operands.
template <class Real>
struct LoraContext {
    const LoraForm& form;
    const DropoutStreams& streams; ///< one a sequence; empty: no dropout
    int length;                    ///< rows of a sequence
    std::uint64_t place;           ///< tells layers and projections apart in the random streams
};

/// y[n, outputs] += scale dropout(x) A^T B^T
template <class Real>
void add_low_rank(Gemm<Real>& gemm, const LoraContext<Real>& context, const LowRank<Real>& update,
                  const Matrix<Real>& x, const Matrix<Real>& y, LoraScratch<Real>& scratch);

/// Adds to the gradients of A and B where those are kept, and to dx[n, inputs] unless it has no rows.
template <class Real>
void low_rank_backward(Gemm<Real>& gemm, const LoraContext<Real>& context, const LowRank<Real>& update,
                       const Matrix<Real>& x, const Matrix<Real>& dy, const Matrix<Real>& dx,
                       LoraScratch<Real>& scratch);

} // namespace lolcats
