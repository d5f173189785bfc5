#pragma once
/// Attention written down from its formulas: double precision, one T x T matrix of weights a head, explicit near and
/// far sets. Nothing here is shared with the kernels but their names for shapes and kinds.
#include "kernels/attention_form.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lolcats::test {

/// Inputs in the layout of the kernels: q [B T, H d], k and v [B T, H_kv d], maps [H, d, f], the rest [H].
struct NaiveInputs {
    std::vector<double> q, k, v;
    std::vector<double> q_map, k_map;
    std::vector<double> q_bias, k_bias;
    std::vector<double> g;
};

/// Weights of one head, [T, T]; zero where a key is later than the query.
using NaiveWeights = std::vector<double>;

struct NaiveAttention {
    std::vector<double> y;          ///< [B T, H d]
    std::vector<double> statistics; ///< [B H, T]: the normalizer of a student, the log_sum of a teacher
};

inline std::size_t naive_query(const AttentionShape& s, int b, int n, int h) {
    return (static_cast<std::size_t>(b * s.length + n) * s.heads + h) * s.head_dim;
}

inline std::size_t naive_key(const AttentionShape& s, int b, int n, int h) {
    const int kv_head = h / (s.heads / s.kv_heads);
    return (static_cast<std::size_t>(b * s.length + n) * s.kv_heads + kv_head) * s.head_dim;
}

inline double naive_score(const AttentionShape& s, const NaiveInputs& in, int b, int h, int n, int i) {
    double sum = 0;
    for (int c = 0; c < s.head_dim; ++c) sum += in.q[naive_query(s, b, n, h) + c] * in.k[naive_key(s, b, i, h) + c];
    return sum / std::sqrt(static_cast<double>(s.head_dim));
}

/// Whether key i <= n is near to query n.
inline bool naive_near(NearKeys near, int window, int n, int i) {
    switch (near) {
    case NearKeys::terrace:
        return i / window == n / window || i / window == n / window - 1;
    case NearKeys::sliding:
        return n - window + 1 <= i;
    case NearKeys::none:
        return false;
    }
    return false;
}

inline std::vector<double> naive_softmax(const std::vector<double>& z, double sign) {
    std::vector<double> out;
    double total = 0;
    for (const double x : z) total += std::exp(sign * x);
    for (const double x : z) out.push_back(std::exp(sign * x) / total);
    return out;
}

inline std::vector<double> naive_activation(FeatureMapKind kind, const std::vector<double>& z) {
    std::vector<double> out;
    const double largest = *std::max_element(z.begin(), z.end());
    const double smallest = *std::min_element(z.begin(), z.end());
    if (kind == FeatureMapKind::hedgehog || kind == FeatureMapKind::hedgehog_half) out = naive_softmax(z, 1);
    if (kind == FeatureMapKind::hedgehog)
        for (const double x : naive_softmax(z, -1)) out.push_back(x);
    if (kind == FeatureMapKind::exp_dim || kind == FeatureMapKind::exp_dim_half)
        for (const double x : z) out.push_back(std::exp(x - largest));
    if (kind == FeatureMapKind::exp_dim)
        for (const double x : z) out.push_back(std::exp(-x + smallest));
    if (kind == FeatureMapKind::t2r)
        for (const double x : z) out.push_back(std::max(x, 0.0));
    if (kind == FeatureMapKind::pos_elu)
        for (const double x : z) out.push_back(1 + (x > 0 ? x : std::exp(x) - 1));
    if (kind == FeatureMapKind::dpfp) {
        std::vector<double> r;
        for (const double sign : {1.0, -1.0})
            for (const double x : z) r.push_back(std::max(sign * x, 0.0));
        for (std::size_t j = 0; j < r.size(); ++j) out.push_back(r[j] * r[(j + r.size() - 1) % r.size()]);
    }
    for (double& x : out) x = std::max(x, 1e-12);
    return out;
}

/// phi(x) of the d values at x for one head's map, d x f.
inline std::vector<double> naive_features(const StudentForm& form, int d, const double* x, const double* map,
                                          double bias) {
    std::vector<double> z(form.feature_dim, has_bias(form.map) ? bias : 0);
    for (int c = 0; c < d; ++c)
        for (int j = 0; j < form.feature_dim; ++j) z[j] += x[c] * map[c * form.feature_dim + j];
    return naive_activation(form.map, z);
}

struct NaiveHeadFeatures {
    std::vector<std::vector<double>> q, k;
};

/// phi_q and phi_k of every row of head h in sequence b.
inline NaiveHeadFeatures naive_head_features(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in,
                                             int b, int h) {
    const int d = s.head_dim;
    const std::size_t map = static_cast<std::size_t>(h) * d * form.feature_dim;
    NaiveHeadFeatures phi;
    for (int n = 0; n < s.length; ++n) {
        phi.q.push_back(naive_features(form, d, &in.q[naive_query(s, b, n, h)], &in.q_map[map], in.q_bias[h]));
        phi.k.push_back(naive_features(form, d, &in.k[naive_key(s, b, n, h)], &in.k_map[map], in.k_bias[h]));
    }
    return phi;
}

/// The student's weights of head h in sequence b, not normalised.
inline NaiveWeights naive_student_weights(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in,
                                          int b, int h) {
    const double gamma = 1 / (1 + std::exp(-in.g[h]));
    const double lambda = form.affine && form.near != NearKeys::none ? 1 - gamma : 1;
    const auto [phi_q, phi_k] = naive_head_features(s, form, in, b, h);
    NaiveWeights weights(static_cast<std::size_t>(s.length) * s.length);
    for (int n = 0; n < s.length; ++n) {
        double* row = &weights[static_cast<std::size_t>(n) * s.length];
        double top = -INFINITY;
        for (int i = 0; i <= n; ++i) {
            if (naive_near(form.near, form.window, n, i)) {
                row[i] = naive_score(s, in, b, h, n, i);
                top = std::max(top, row[i]);
            } else {
                for (std::size_t j = 0; j < phi_q[n].size(); ++j) row[i] += lambda * phi_q[n][j] * phi_k[i][j];
            }
        }
        for (int i = 0; i <= n; ++i)
            if (naive_near(form.near, form.window, n, i)) row[i] = gamma * std::exp(row[i] - top);
    }
    return weights;
}

/// The teacher's weights, normalised, and the logarithm of each row's sum of exponentials.
inline NaiveWeights naive_teacher_weights(const AttentionShape& s, const NaiveInputs& in, int b, int h,
                                          double* log_sums) {
    NaiveWeights weights(static_cast<std::size_t>(s.length) * s.length);
    for (int n = 0; n < s.length; ++n) {
        double* row = &weights[static_cast<std::size_t>(n) * s.length];
        double top = -INFINITY;
        for (int i = 0; i <= n; ++i) {
            row[i] = naive_score(s, in, b, h, n, i);
            top = std::max(top, row[i]);
        }
        double sum = 0;
        for (int i = 0; i <= n; ++i) sum += std::exp(row[i] - top);
        log_sums[n] = top + std::log(sum);
        for (int i = 0; i <= n; ++i) row[i] = std::exp(row[i] - log_sums[n]);
    }
    return weights;
}

/// Normalizers of one head: row sums, and 1e-12 more where there are no near keys.
inline std::vector<double> naive_normalizers(int length, NearKeys near, const NaiveWeights& weights) {
    std::vector<double> sums(length, near == NearKeys::none ? 1e-12 : 0);
    for (int n = 0; n < length; ++n)
        for (int i = 0; i <= n; ++i) sums[n] += weights[static_cast<std::size_t>(n) * length + i];
    return sums;
}

inline void naive_apply(const AttentionShape& s, const NaiveInputs& in, const NaiveWeights& weights,
                        const std::vector<double>& normalizers, int b, int h, std::vector<double>& y) {
    for (int n = 0; n < s.length; ++n)
        for (int i = 0; i <= n; ++i) {
            const double share = weights[static_cast<std::size_t>(n) * s.length + i] / normalizers[n];
            for (int c = 0; c < s.head_dim; ++c)
                y[naive_query(s, b, n, h) + c] += share * in.v[naive_key(s, b, i, h) + c];
        }
}

inline NaiveAttention naive_attention_outputs(const AttentionShape& s) {
    return {.y = std::vector<double>(static_cast<std::size_t>(s.batch) * s.length * s.heads * s.head_dim),
            .statistics = std::vector<double>(static_cast<std::size_t>(s.batch) * s.heads * s.length)};
}

inline NaiveAttention naive_student(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in) {
    NaiveAttention out = naive_attention_outputs(s);
    for (int b = 0; b < s.batch; ++b)
        for (int h = 0; h < s.heads; ++h) {
            const auto weights = naive_student_weights(s, form, in, b, h);
            const auto sums = naive_normalizers(s.length, form.near, weights);
            std::copy(sums.begin(), sums.end(),
                      out.statistics.begin() + static_cast<std::ptrdiff_t>(b * s.heads + h) * s.length);
            naive_apply(s, in, weights, sums, b, h, out.y);
        }
    return out;
}

inline NaiveAttention naive_teacher(const AttentionShape& s, const NaiveInputs& in) {
    NaiveAttention out = naive_attention_outputs(s);
    const std::vector<double> ones(s.length, 1.0);
    for (int b = 0; b < s.batch; ++b)
        for (int h = 0; h < s.heads; ++h) {
            double* log_sums = &out.statistics[static_cast<std::size_t>(b * s.heads + h) * s.length];
            naive_apply(s, in, naive_teacher_weights(s, in, b, h, log_sums), ones, b, h, out.y);
        }
    return out;
}

struct NaiveCrossEntropy {
    double loss = 0;
    double clamped_mass = 0; ///< teacher's mass on keys whose student weight is below 1e-12
};

enum class NaiveKeys { all, far };

/// Sum over queries of -sum_i a_i log max(a^_i, 1e-12), or the same among far keys with a^ normalised over those.
inline NaiveCrossEntropy naive_attention_cross_entropy(const AttentionShape& s, const StudentForm& form,
                                                       const NaiveInputs& in, NaiveKeys counted = NaiveKeys::all) {
    NaiveCrossEntropy result;
    std::vector<double> log_sums(s.length);
    for (int b = 0; b < s.batch; ++b)
        for (int h = 0; h < s.heads; ++h) {
            const auto is_counted = [&](int n, int i) {
                return counted == NaiveKeys::all || !naive_near(form.near, form.window, n, i);
            };
            auto student = naive_student_weights(s, form, in, b, h);
            for (int n = 0; n < s.length; ++n)
                for (int i = 0; i <= n; ++i)
                    if (!is_counted(n, i)) student[static_cast<std::size_t>(n) * s.length + i] = 0;
            const auto near = counted == NaiveKeys::all ? form.near : NearKeys::terrace; // far keys alone: no floor
            const auto sums = naive_normalizers(s.length, near, student);
            const auto teacher = naive_teacher_weights(s, in, b, h, log_sums.data());
            for (int n = 0; n < s.length; ++n)
                for (int i = 0; i <= n; ++i) {
                    if (!is_counted(n, i)) continue;
                    const std::size_t at = static_cast<std::size_t>(n) * s.length + i;
                    const double share = student[at] / sums[n];
                    result.loss -= teacher[at] * std::log(std::max(share, 1e-12));
                    if (share < 1e-12) result.clamped_mass += teacher[at];
                }
        }
    return result;
}

} // namespace lolcats::test
