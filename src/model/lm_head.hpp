#pragma once
/// The end of the model: final RMSNorm, vocabulary projection and next-token loss, a few rows at a time so that no more
/// than [rows_at_once, V] logits exist.
#include "kernels/cross_entropy.hpp"
#include "lolcats/model.hpp"
#include "src/work_sizes.hpp"

#include <functional>

namespace lolcats {

/// The teacher that a model's distributions are drawn towards; factor 0: none.
template <class Real>
struct Distillation {
    Matrix<Real> x;  ///< [n, D], the teacher's residual stream after the last layer
    Real factor = 0; ///< weight of the divergence beside the next-token loss
};

template <class Real>
class LmHead {
public:
    static constexpr int rows_at_once = head_rows;
    /// Sees logits[rows, V] of the rows from `first` on.
    using LogitsVisitor = std::function<void(int first, const Matrix<Real>& logits)>;

    LmHead(const ModelConfig& config, HeadWeights<Real> weights, Gemm<Real>& gemm);

    /// [n, V] from x[n, D], n at most rows_at_once, until the next call.
    Matrix<Real> logits(const Matrix<Real>& x);

    /// x: [n, D], the residual stream after the last layer; labels: [n], already shifted; predicted: [n].
    CrossEntropySum loss(const Matrix<Real>& x, const Vector<std::int32_t>& labels,
                         const Vector<std::int32_t>& predicted, const LogitsVisitor& visit = {});

    /// The same, and x becomes `scale` times the gradient of the summed loss and of the divergence by its factor.
    CrossEntropySum loss_and_gradient(const Matrix<Real>& x, const Vector<std::int32_t>& labels, Real scale,
                                      const Vector<std::int32_t>& predicted,
                                      const Distillation<Real>& distillation = {});

private:
    /// Of at most rows_at_once rows. Leaves the gradient of their logits in logits_ where scale is not zero.
    CrossEntropySum run_part(const Matrix<Real>& x, const Matrix<Real>& teacher, const Vector<std::int32_t>& labels,
                             Real scale, Real factor, const Vector<std::int32_t>& predicted,
                             const std::function<void(const Matrix<Real>&)>& visit);
    CrossEntropySum run(const Matrix<Real>& x, const Vector<std::int32_t>& labels, Real scale,
                        const Vector<std::int32_t>& predicted, const LogitsVisitor& visit,
                        const Distillation<Real>& distillation);

    const ModelConfig& config_;
    HeadWeights<Real> weights_;
    Gemm<Real>& gemm_;
    Matrix<Real> normed_;         ///< [rows_at_once, D]
    Matrix<Real> logits_;         ///< [rows_at_once, V]
    Matrix<Real> teacher_logits_; ///< [rows_at_once, V], allocated when first needed
};

} // namespace lolcats
