#pragma once
/// Gradients of the student's attention from the formulas: double precision, every weight of the T x T matrix by
/// itself.
#include "tests/kernels/naive_attention.hpp"

#include <stdexcept>

namespace lolcats::test {

/// dz of one row of a feature map whose outputs' gradient is dphi.
inline std::vector<double> naive_activation_gradient(FeatureMapKind kind, const std::vector<double>& z,
                                                     std::vector<double> dphi) {
    const auto phi = naive_activation(kind, z);
    const std::size_t f = z.size();
    for (std::size_t j = 0; j < phi.size(); ++j)
        if (phi[j] <= 1e-12) dphi[j] = 0;
    std::vector<double> dz(f);
    for (std::size_t half = 0; half < phi.size(); half += f) {
        const double sign = half == 0 ? 1 : -1;
        std::size_t extreme = 0;
        double sum = 0;
        for (std::size_t j = 0; j < f; ++j) {
            sum += phi[half + j] * dphi[half + j];
            if (sign * z[j] > sign * z[extreme]) extreme = j;
        }
        for (std::size_t j = 0; j < f; ++j) {
            const double a = phi[half + j];
            const double da = dphi[half + j];
            switch (kind) {
            case FeatureMapKind::hedgehog:
            case FeatureMapKind::hedgehog_half:
                dz[j] += sign * a * (da - sum);
                break;
            case FeatureMapKind::exp_dim:
            case FeatureMapKind::exp_dim_half:
                dz[j] += sign * (a * da - (j == extreme ? sum : 0));
                break;
            case FeatureMapKind::t2r:
                dz[j] += da;
                break;
            case FeatureMapKind::pos_elu:
                dz[j] += z[j] > 0 ? da : a * da;
                break;
            default:
                throw std::logic_error("naive_activation_gradient: a map without a CUDA twin");
            }
        }
    }
    return dz;
}

/// Takes dphi of one row x to the map's weights and bias and to x.
inline void naive_map_gradient(const StudentForm& form, int d, const double* x, const double* map, double bias,
                               const std::vector<double>& dphi, double* dmap, double& dbias, double& dbias_size,
                               double* dx) {
    const int f = form.feature_dim;
    std::vector<double> z(f, has_bias(form.map) ? bias : 0);
    for (int c = 0; c < d; ++c)
        for (int j = 0; j < f; ++j) z[j] += x[c] * map[c * f + j];
    const auto dz = naive_activation_gradient(form.map, z, dphi);
    for (int j = 0; j < f; ++j) {
        dbias += dz[j];
        dbias_size += dz[j] * dz[j];
        for (int c = 0; c < d; ++c) {
            dmap[c * f + j] += x[c] * dz[j];
            dx[c] += dz[j] * map[c * f + j];
        }
    }
}

inline NaiveInputs zeros_like(const NaiveInputs& in) {
    const auto zeros = [](const std::vector<double>& x) { return std::vector<double>(x.size()); };
    return {.q = zeros(in.q),
            .k = zeros(in.k),
            .v = zeros(in.v),
            .q_map = zeros(in.q_map),
            .k_map = zeros(in.k_map),
            .q_bias = zeros(in.q_bias),
            .k_bias = zeros(in.k_bias),
            .g = zeros(in.g)};
}

struct NaiveGradients : NaiveInputs {
    // [H] each: the root of the sum of squares of the terms that make up a sum in which they may cancel.
    std::vector<double> g_size;
    std::vector<double> q_bias_size;
    std::vector<double> k_bias_size;
};

/// Takes dphi of every row of one head to the maps and to q and k.
inline void add_naive_map_gradients(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in, int b,
                                    int h, const NaiveHeadFeatures& dphi, NaiveGradients& out) {
    const int d = s.head_dim;
    const std::size_t map = static_cast<std::size_t>(h) * d * form.feature_dim;
    for (int n = 0; n < s.length; ++n) {
        const std::size_t q = naive_query(s, b, n, h);
        const std::size_t k = naive_key(s, b, n, h);
        naive_map_gradient(form, d, &in.q[q], &in.q_map[map], in.q_bias[h], dphi.q[n], &out.q_map[map], out.q_bias[h],
                           out.q_bias_size[h], &out.q[q]);
        naive_map_gradient(form, d, &in.k[k], &in.k_map[map], in.k_bias[h], dphi.k[n], &out.k_map[map], out.k_bias[h],
                           out.k_bias_size[h], &out.k[k]);
    }
}

/// Gradients of dy . y for one head of one sequence, added to `out`; sizes are still squares.
inline void add_naive_head_gradients(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in,
                                     const std::vector<double>& dy, int b, int h, NaiveGradients& out) {
    const int d = s.head_dim;
    const double gamma = 1 / (1 + std::exp(-in.g[h]));
    const bool has_near = form.near != NearKeys::none;
    const double lambda = form.affine && has_near ? 1 - gamma : 1;
    const auto weights = naive_student_weights(s, form, in, b, h);
    const auto sums = naive_normalizers(s.length, form.near, weights);
    const auto [phi_q, phi_k] = naive_head_features(s, form, in, b, h);
    const std::size_t p = phi_q[0].size();
    const std::vector<std::vector<double>> zeros(s.length, std::vector<double>(p));
    NaiveHeadFeatures dphi{zeros, zeros};
    for (int n = 0; n < s.length; ++n) {
        const double* row = &weights[static_cast<std::size_t>(n) * s.length];
        const double* gradient = &dy[naive_query(s, b, n, h)];
        const auto value = [&](int i, int c) { return in.v[naive_key(s, b, i, h) + c]; };
        std::vector<double> y(d);
        for (int i = 0; i <= n; ++i)
            for (int c = 0; c < d; ++c) y[c] += row[i] / sums[n] * value(i, c);
        double dgamma = 0;
        double through_maximum = 0;
        int largest = -1;
        for (int i = 0; i <= n; ++i) {
            double dweight = 0; // dl / dweight
            for (int c = 0; c < d; ++c) {
                dweight += gradient[c] * (value(i, c) - y[c]) / sums[n];
                out.v[naive_key(s, b, i, h) + c] += row[i] / sums[n] * gradient[c];
            }
            out.g_size[h] += std::pow(row[i] * dweight * (1 - gamma), 2);
            if (naive_near(form.near, form.window, n, i)) {
                dgamma += row[i] / gamma * dweight;
                through_maximum += row[i] * dweight;
                if (largest < 0 || row[i] > row[largest]) largest = i;
            } else {
                for (std::size_t j = 0; j < p; ++j) {
                    dphi.q[n][j] += lambda * dweight * phi_k[i][j];
                    dphi.k[i][j] += lambda * dweight * phi_q[n][j];
                }
                if (form.affine && has_near) dgamma -= row[i] / lambda * dweight;
            }
        }
        out.g[h] += dgamma * gamma * (1 - gamma);
        for (int i = 0; i <= n; ++i) {
            if (!naive_near(form.near, form.window, n, i)) continue;
            double dscore = i == largest ? -through_maximum : 0;
            for (int c = 0; c < d; ++c) dscore += row[i] * gradient[c] * (value(i, c) - y[c]) / sums[n];
            for (int c = 0; c < d; ++c) {
                const double scale = 1 / std::sqrt(static_cast<double>(d));
                out.q[naive_query(s, b, n, h) + c] += scale * dscore * in.k[naive_key(s, b, i, h) + c];
                out.k[naive_key(s, b, i, h) + c] += scale * dscore * in.q[naive_query(s, b, n, h) + c];
            }
        }
    }
    add_naive_map_gradients(s, form, in, b, h, dphi, out);
}

/// Gradients of the attention weights' cross-entropy for one head of one sequence, added to `out`; sizes are still
/// squares.
inline void add_naive_head_entropy_gradients(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in,
                                             NaiveKeys counted, int b, int h, NaiveGradients& out) {
    const double gamma = 1 / (1 + std::exp(-in.g[h]));
    const bool has_near = form.near != NearKeys::none;
    const double lambda = form.affine && has_near ? 1 - gamma : 1;
    const auto is_near = [&](int n, int i) { return naive_near(form.near, form.window, n, i); };
    const auto student = naive_student_weights(s, form, in, b, h);
    std::vector<double> log_sums(s.length);
    const auto teacher = naive_teacher_weights(s, in, b, h, log_sums.data());
    const auto [phi_q, phi_k] = naive_head_features(s, form, in, b, h);
    const std::size_t p = phi_q[0].size();
    const std::vector<std::vector<double>> zeros(s.length, std::vector<double>(p));
    NaiveHeadFeatures dphi{zeros, zeros};
    for (int n = 0; n < s.length; ++n) {
        const std::size_t row = static_cast<std::size_t>(n) * s.length;
        const auto is_counted = [&](int i) { return counted == NaiveKeys::all || !is_near(n, i); };
        double sum = counted == NaiveKeys::all && !has_near ? 1e-12 : 0;
        for (int i = 0; i <= n; ++i) sum += is_counted(i) ? student[row + i] : 0;
        double mass = 0;
        for (int i = 0; i <= n; ++i)
            if (is_counted(i) && student[row + i] / sum >= 1e-12) mass += teacher[row + i];
        for (int i = 0; i <= n; ++i) {
            if (!is_counted(i)) continue;
            const double weight = student[row + i];
            const double dweight = mass / sum - (weight / sum < 1e-12 ? 0 : teacher[row + i] / weight);
            if (counted == NaiveKeys::all && has_near) {
                const double by_gamma = is_near(n, i) ? weight / gamma : form.affine ? -weight / lambda : 0;
                out.g[h] += dweight * by_gamma * gamma * (1 - gamma);
                out.g_size[h] += std::pow(weight * dweight * (1 - gamma), 2);
            }
            if (is_near(n, i)) continue;
            for (std::size_t j = 0; j < p; ++j) {
                dphi.q[n][j] += lambda * dweight * phi_k[i][j];
                dphi.k[i][j] += lambda * dweight * phi_q[n][j];
            }
        }
    }
    add_naive_map_gradients(s, form, in, b, h, dphi, out);
}

/// What `add(b, h, out)` adds for every head.
template <class Add>
NaiveGradients naive_gradients_of_heads(const AttentionShape& s, const NaiveInputs& in, const Add& add) {
    const std::vector<double> zeros(in.g.size());
    NaiveGradients out{zeros_like(in), zeros, zeros, zeros};
    for (int b = 0; b < s.batch; ++b)
        for (int h = 0; h < s.heads; ++h) add(b, h, out);
    for (auto* sizes : {&out.g_size, &out.q_bias_size, &out.k_bias_size})
        for (double& size : *sizes) size = std::sqrt(size);
    return out;
}

/// Gradients of dy . y, in the layout of the inputs. Where scores tie, the first takes the maximum's whole share.
inline NaiveGradients naive_gradients(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in,
                                      const std::vector<double>& dy) {
    return naive_gradients_of_heads(
        s, in, [&](int b, int h, NaiveGradients& out) { add_naive_head_gradients(s, form, in, dy, b, h, out); });
}

/// Gradients of naive_attention_cross_entropy with respect to the parameters.
inline NaiveGradients naive_entropy_gradients(const AttentionShape& s, const StudentForm& form, const NaiveInputs& in,
                                              NaiveKeys counted) {
    return naive_gradients_of_heads(s, in, [&](int b, int h, NaiveGradients& out) {
        add_naive_head_entropy_gradients(s, form, in, counted, b, h, out);
    });
}

} // namespace lolcats::test
