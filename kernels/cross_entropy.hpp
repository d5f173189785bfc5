#pragma once
/// Next-token cross-entropy on rows of logits.
#include "kernels/views.hpp"

#include <cstdint>

namespace lolcats {

constexpr std::int32_t unlabelled = -100;

struct CrossEntropySum {
    double loss = 0; ///< sum of -log softmax(logits)[label] over labelled rows
    std::int64_t labelled = 0;
    double divergence = 0; ///< from a teacher, where there is one (divergence.hpp), over the same rows
};

/// logits: [n, V]; labels: [n], -100 where a row does not count. `predicted`: [n], the arg-max of each row.
/// Where `scale` is not zero, logits become scale times the gradient of the summed loss.
template <class Real>
CrossEntropySum cross_entropy(const Matrix<Real>& logits, const Vector<std::int32_t>& labels, Real scale,
                              const Vector<std::int32_t>& predicted);

} // namespace lolcats
