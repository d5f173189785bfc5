#include "src/model/lm_head.hpp"

#include "kernels/rms_norm.hpp"

#include <algorithm>

namespace lolcats {

template <class Real>
LmHead<Real>::LmHead(const ModelConfig& config, HeadWeights<Real> weights, Gemm<Real>& gemm)
    : config_(config), weights_(std::move(weights)), gemm_(gemm),
      normed_(uninitialized("head_normed"), rows_at_once, config.hidden_size),
      logits_(uninitialized("logits"), rows_at_once, config.vocab_size),
      input_(uninitialized("head_input"), rows_at_once, config.hidden_size) {}

template <class Real>
Matrix<Real> LmHead<Real>::logits(const Matrix<Real>& x) {
    const int rows = static_cast<int>(x.extent(0));
    const auto normed = first_rows(normed_, rows);
    const auto logits = first_rows(logits_, rows);
    rms_norm(x, weights_.norm, config_.rms_norm_eps, normed);
    gemm_.linear(normed, weights_.lm_head, logits);
    return logits;
}

template <class Real>
CrossEntropySum LmHead<Real>::run(const Matrix<Real>& x, const Vector<std::int32_t>& labels, Real scale,
                                  const Vector<std::int32_t>& predicted, const LogitsVisitor& visit) {
    CrossEntropySum total;
    const int rows = static_cast<int>(x.extent(0));
    for (int first = 0; first < rows; first += rows_at_once) {
        const int count = std::min(rows_at_once, rows - first);
        const auto range = Kokkos::make_pair(first, first + count);
        const Matrix<Real> part = Kokkos::subview(x, range, Kokkos::ALL);
        const auto logits = this->logits(part);
        if (visit) visit(first, logits);
        const CrossEntropySum sum = cross_entropy(logits, Vector<std::int32_t>(Kokkos::subview(labels, range)), scale,
                                                  Vector<std::int32_t>(Kokkos::subview(predicted, range)));
        total.loss += sum.loss;
        total.labelled += sum.labelled;
        if (scale == 0) continue;
        const auto normed = first_rows(normed_, count);
        gemm_.linear_backward(logits, weights_.lm_head, normed);
        const auto input = first_rows(input_, count);
        Kokkos::deep_copy(Execution(), input, part);
        Kokkos::deep_copy(Execution(), part, Real(0));
        rms_norm_backward(input, weights_.norm, config_.rms_norm_eps, normed, part);
    }
    return total;
}

template <class Real>
CrossEntropySum LmHead<Real>::loss(const Matrix<Real>& x, const Vector<std::int32_t>& labels,
                                   const Vector<std::int32_t>& predicted, const LogitsVisitor& visit) {
    return run(x, labels, 0, predicted, visit);
}

template <class Real>
CrossEntropySum LmHead<Real>::loss_and_gradient(const Matrix<Real>& x, const Vector<std::int32_t>& labels, Real scale,
                                                const Vector<std::int32_t>& predicted) {
    return run(x, labels, scale, predicted, {});
}

template class LmHead<float>;
template class LmHead<double>;

} // namespace lolcats
