#include "src/model/lm_head.hpp"

#include "kernels/divergence.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/rms_norm.hpp"

#include <algorithm>

namespace lolcats {

template <class Real>
LmHead<Real>::LmHead(const ModelConfig& config, HeadWeights<Real> weights, Gemm<Real>& gemm)
    : config_(config), weights_(std::move(weights)), gemm_(gemm),
      normed_(uninitialized("head_normed"), rows_at_once, config.hidden_size),
      logits_(uninitialized("logits"), rows_at_once, config.vocab_size) {}

template <class Real>
Matrix<Real> LmHead<Real>::logits(const Matrix<Real>& x) {
    const int rows = static_cast<int>(x.extent(0));
    const auto normed = first_rows(normed_, rows);
    const auto logits = first_rows(logits_, rows);
    const auto normalize = [&](const auto& out) { rms_norm(x, weights_.norm, config_.rms_norm_eps, out); };
    gemm_.linear_of(normed, normalize, {{weights_.lm_head, logits}});
    return logits;
}

template <class Real>
CrossEntropySum LmHead<Real>::run_part(const Matrix<Real>& x, const Matrix<Real>& teacher,
                                       const Vector<std::int32_t>& labels, Real scale, Real factor,
                                       const Vector<std::int32_t>& predicted,
                                       const std::function<void(const Matrix<Real>&)>& visit) {
    const bool distils = teacher.extent(0) > 0;
    Matrix<Real> teacher_logits;
    if (distils) {
        teacher_logits = first_rows(teacher_logits_, static_cast<int>(x.extent(0)));
        Kokkos::deep_copy(Execution(), teacher_logits, logits(teacher));
    }
    const Matrix<Real> logits = this->logits(x);
    if (visit) visit(logits);
    const double diverged = distils ? divergence(logits, labels, scale * factor, teacher_logits) : 0;
    CrossEntropySum sum = cross_entropy(logits, labels, scale, predicted);
    sum.divergence = diverged;
    if (distils && scale != 0) lolcats::add(logits, teacher_logits);
    return sum;
}

template <class Real>
CrossEntropySum LmHead<Real>::run(const Matrix<Real>& x, const Vector<std::int32_t>& labels, Real scale,
                                  const Vector<std::int32_t>& predicted, const LogitsVisitor& visit,
                                  const Distillation<Real>& distillation) {
    CrossEntropySum total;
    if (distillation.factor > 0 && teacher_logits_.extent(0) == 0)
        teacher_logits_ = Matrix<Real>(uninitialized("teacher_logits"), rows_at_once, config_.vocab_size);
    const int rows = static_cast<int>(x.extent(0));
    for (int first = 0; first < rows; first += rows_at_once) {
        const int count = std::min(rows_at_once, rows - first);
        const auto range = Kokkos::make_pair(first, first + count);
        const auto rows_of = [&](const Matrix<Real>& all) -> Matrix<Real> {
            return Kokkos::subview(all, range, Kokkos::ALL);
        };
        const Matrix<Real> part = rows_of(x);
        const Matrix<Real> teacher = distillation.factor > 0 ? rows_of(distillation.x) : Matrix<Real>();
        const auto look = [&](const Matrix<Real>& logits) {
            if (visit) visit(first, logits);
        };
        const CrossEntropySum sum =
            run_part(part, teacher, Vector<std::int32_t>(Kokkos::subview(labels, range)), scale, distillation.factor,
                     Vector<std::int32_t>(Kokkos::subview(predicted, range)), look);
        total.loss += sum.loss;
        total.labelled += sum.labelled;
        total.divergence += sum.divergence;
        if (scale == 0) continue;
        const auto normed = first_rows(normed_, count);
        gemm_.linear_backward(first_rows(logits_, count), weights_.lm_head, normed);
        rms_norm_backward(part, weights_.norm, config_.rms_norm_eps, normed, {}, part);
    }
    return total;
}

template <class Real>
CrossEntropySum LmHead<Real>::loss(const Matrix<Real>& x, const Vector<std::int32_t>& labels,
                                   const Vector<std::int32_t>& predicted, const LogitsVisitor& visit) {
    return run(x, labels, 0, predicted, visit, {});
}

template <class Real>
CrossEntropySum LmHead<Real>::loss_and_gradient(const Matrix<Real>& x, const Vector<std::int32_t>& labels, Real scale,
                                                const Vector<std::int32_t>& predicted,
                                                const Distillation<Real>& distillation) {
    return run(x, labels, scale, predicted, {}, distillation);
}

template class LmHead<float>;
template class LmHead<double>;

} // namespace lolcats
