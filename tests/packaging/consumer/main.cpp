/// A program of another project: softmax attention by the installed library against its formula.
#include "kernels/feature_maps.hpp"
#include "kernels/softmax_attention.hpp"

#include <cmath>
#include <cstdio>
#include <string>

namespace {

constexpr lolcats::AttentionShape shape{.batch = 1, .length = 5, .heads = 1, .kv_heads = 1, .head_dim = 3};

using Rows = double[shape.length][shape.head_dim];

lolcats::Matrix<double> on_device(const std::string& label, const Rows& rows) {
    const lolcats::Matrix<double> matrix(label, shape.length, shape.head_dim);
    const auto host = Kokkos::create_mirror_view(matrix);
    for (int n = 0; n < shape.length; ++n)
        for (int c = 0; c < shape.head_dim; ++c) host(n, c) = rows[n][c];
    Kokkos::deep_copy(matrix, host);
    return matrix;
}

/// Component c of query n's output, from the formula.
double expected(const Rows& q, const Rows& k, const Rows& v, int n, int c) {
    double above = 0;
    double below = 0;
    for (int i = 0; i <= n; ++i) {
        double score = 0;
        for (int j = 0; j < shape.head_dim; ++j) score += q[n][j] * k[i][j];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(shape.head_dim)));
        above += weight * v[i][c];
        below += weight;
    }
    return above / below;
}

/// The largest difference between library and formula; NaN if the library gives one.
double largest_difference() {
    Rows q;
    Rows k;
    Rows v;
    for (int n = 0; n < shape.length; ++n)
        for (int c = 0; c < shape.head_dim; ++c) {
            q[n][c] = std::sin(1.0 + n + 7 * c);
            k[n][c] = std::cos(2.0 + 3 * n - c);
            v[n][c] = std::sin(5.0 * n + c);
        }
    const lolcats::Matrix<double> y("y", shape.length, shape.head_dim);
    const lolcats::Matrix<double> log_sum("log_sum", 1, shape.length);
    const lolcats::AttentionInputs<double> inputs{on_device("q", q), on_device("k", k), on_device("v", v)};
    lolcats::softmax_attention(shape, inputs, {y, log_sum});
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), y);
    double largest = 0;
    for (int n = 0; n < shape.length; ++n)
        for (int c = 0; c < shape.head_dim; ++c) {
            const double difference = std::abs(host(n, c) - expected(q, k, v, n, c));
            largest = difference <= largest ? largest : difference; // keeps a NaN
        }
    return largest;
}

} // namespace

int main(int argc, char** argv) {
    const Kokkos::ScopeGuard kokkos(argc, argv);
    const double difference = largest_difference();
    std::printf("%zu feature maps, largest difference %g\n", lolcats::feature_map_names().size(), difference);
    return difference < 1e-12 ? 0 : 1;
}
