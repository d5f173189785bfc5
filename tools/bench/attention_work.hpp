#pragma once
/// FLOP that attention asks for, teacher and student.
#include "kernels/attention_form.hpp"

#include <algorithm>

namespace lolcats {

/// What the mathematics asks for, by head and sequence.
struct AttentionWork {
    double teacher = 0; ///< FLOP
    double forward = 0; ///< FLOP of the student
    double maps = 0;    ///< FLOP of the student's backward pass for maps and g
    double inputs = 0;  ///< and for q, k and v
    double frozen = 0;  ///< for q, k and v alone
    double entropy = 0; ///< of the weights' cross-entropy with its gradients
};

inline AttentionWork attention_work(const AttentionShape& s, const StudentForm& form) {
    const double d = s.head_dim;
    const double f = form.feature_dim;
    const double p = features(form.map, form.feature_dim);
    const double w = form.window;
    const double n = s.length;
    const double pairs = n * (n + 1) / 2;
    const double window_pairs = form.near == NearKeys::none ? 0 : form.near == NearKeys::terrace ? n * 1.5 * w : n * w;
    const double near = std::min(pairs, window_pairs);
    const double local_far = form.near == NearKeys::terrace ? 0 : std::min(pairs - near, n * w / 2);
    AttentionWork work;
    work.teacher = 4 * d * pairs;
    work.forward = 2 * n * 2 * d * f + 4 * d * near + 2 * (p + d) * local_far + 4 * n * p * d;
    work.maps = 2 * n * 4 * d * f + 2 * n * 2 * d * f + 8 * n * p * d + 4 * (p + d) * local_far;
    work.inputs = work.maps + 2 * n * 2 * d * f + 10 * d * near + 2 * n * p * d + 2 * (p + d) * local_far;
    work.frozen = work.inputs - 2 * n * 2 * d * f;
    work.entropy = pairs * (2 * d + 2 * p) + (pairs - near) * 4 * p + 2 * n * 2 * d * f;
    return work;
}

} // namespace lolcats
