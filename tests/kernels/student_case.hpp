#pragma once
/// One student's case, ready for the kernels in either precision.
#include "kernels/softmax_attention.hpp"
#include "kernels/student_attention.hpp"
#include "tests/kernels/attention_case.hpp"
#include "tests/support/arrays.hpp"

#include <vector>

namespace lolcats::test {

/// Two sequences, and two query heads a key/value head.
inline StudentCase grouped_case(NearKeys near, FeatureMapKind map, int length, int window, bool affine = false) {
    const AttentionShape shape{.batch = 2, .length = length, .heads = 4, .kv_heads = 2, .head_dim = 6};
    return {shape, {near, window, map, small_feature_dim(map, shape.head_dim), affine}};
}

inline std::string case_name(const StudentCase& c) {
    return name(c.form.near) + "_" + feature_map_name(c.form.map) + "_T" + std::to_string(c.shape.length) + "_w" +
           std::to_string(c.form.window) + (c.form.affine ? "_affine" : "");
}

template <class Real>
StudentParameters<Real> student_parameters(const StudentCase& c, const NaiveInputs& in) {
    return {.q_map = filled<Tensor3<Real>>(in.q_map, c.shape.heads, c.shape.head_dim, c.form.feature_dim),
            .k_map = filled<Tensor3<Real>>(in.k_map, c.shape.heads, c.shape.head_dim, c.form.feature_dim),
            .q_bias = vector<Real>(in.q_bias),
            .k_bias = vector<Real>(in.k_bias),
            .window_factors = vector<Real>(in.g)};
}

/// Inputs, parameters and results of the kernels for one case.
template <class Real>
struct StudentRun {
    StudentCase c;
    Matrix<Real> q, k, v;
    StudentParameters<Real> parameters;
    Matrix<Real> y;
    Matrix<Real> normalizer;

    StudentRun(const StudentCase& c, const NaiveInputs& in)
        : c(c), q(matrix<Real>(c.rows(), c.query_width(), in.q)), k(matrix<Real>(c.rows(), c.kv_width(), in.k)),
          v(matrix<Real>(c.rows(), c.kv_width(), in.v)), parameters(student_parameters<Real>(c, in)),
          y(poisoned<Real>(c.rows(), c.query_width())), normalizer(poisoned<Real>(c.statistic_rows(), c.shape.length)) {
        student_attention(c.shape, student(), inputs(), outputs());
    }

    [[nodiscard]] Student<Real> student() const { return {c.form, parameters}; }
    [[nodiscard]] AttentionInputs<Real> inputs() const { return {q, k, v}; }
    [[nodiscard]] AttentionOutputs<Real> outputs() const { return {y, normalizer}; }

    [[nodiscard]] StudentGradients<Real> zero_gradients() const {
        return {static_cast<int>(c.statistic_rows()), static_cast<int>(c.map_size())};
    }

    /// Gradients of dy . y with respect to the parameters only.
    [[nodiscard]] StudentGradients<Real> parameter_gradients(const std::vector<double>& dy) const {
        const auto gradients = zero_gradients();
        student_attention_backward(c.shape, student(), inputs(), outputs(), matrix<Real>(c.rows(), c.query_width(), dy),
                                   gradients);
        return gradients;
    }
};

/// Gradients in the layout of NaiveInputs: summed over the batch, and k and v over the heads of a group.
template <class Real>
struct AllGradients {
    StudentGradients<Real> by_head;
    NaiveInputs sums;
};

/// [B H, m] -> [H, m]
inline std::vector<double> sum_over_batch(const AttentionShape& s, const std::vector<double>& values) {
    const std::size_t size = values.size() / s.batch;
    std::vector<double> sums(size);
    for (std::size_t i = 0; i < values.size(); ++i) sums[i % size] += values[i];
    return sums;
}

template <class Real>
NaiveInputs parameter_sums(const AttentionShape& s, const StudentGradients<Real>& gradients) {
    NaiveInputs sums;
    sums.q_map = sum_over_batch(s, values(gradients.q_map));
    sums.k_map = sum_over_batch(s, values(gradients.k_map));
    sums.q_bias = sum_over_batch(s, values(gradients.q_bias));
    sums.k_bias = sum_over_batch(s, values(gradients.k_bias));
    sums.g = sum_over_batch(s, values(gradients.window_factors));
    return sums;
}

/// Gradients of dy . y with respect to the inputs, and to parameters that `gradients` has arrays for.
template <class Real>
AttentionInputGradients<Real> input_gradients(const StudentRun<Real>& run, const std::vector<double>& dy,
                                              const StudentGradients<Real>& gradients) {
    const StudentCase& c = run.c;
    const AttentionInputGradients<Real> inputs{.q = poisoned<Real>(c.rows(), c.query_width()),
                                               .k = poisoned<Real>(c.rows(), c.query_width()),
                                               .v = poisoned<Real>(c.rows(), c.query_width())};
    student_attention_backward(c.shape, run.student(), run.inputs(), run.outputs(),
                               matrix<Real>(c.rows(), c.query_width(), dy), gradients, inputs);
    return inputs;
}

template <class Real>
AllGradients<Real> all_gradients(const StudentRun<Real>& run, const std::vector<double>& dy) {
    const StudentCase& c = run.c;
    const auto gradients = run.zero_gradients();
    const auto inputs = input_gradients(run, dy, gradients);
    AllGradients<Real> result{.by_head = gradients, .sums = parameter_sums(c.shape, gradients)};
    result.sums.q = values(inputs.q);
    const auto grouped = poisoned<Real>(c.rows(), c.kv_width());
    sum_head_groups(c.shape, inputs.k, grouped);
    result.sums.k = values(grouped);
    sum_head_groups(c.shape, inputs.v, grouped);
    result.sums.v = values(grouped);
    return result;
}

} // namespace lolcats::test
