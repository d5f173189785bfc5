/// The cross-entropy of attention weights on tensor cores against its T x T form in float64.
#include "tests/kernels/cuda/student_run.hpp"
#include "tests/kernels/naive_gradients.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/finite_differences.hpp"

namespace lolcats::test {
namespace {

constexpr float entropy_scale = 0.7F;
/// A loss is a sum of logarithms of weights, each of which has the rounding of its features.
constexpr double loss_tolerance = 1e-3;
/// A far weight's gradient is the difference of what all weights gain and what it loses itself.
constexpr double entropy_gradient_tolerance = 2e-2;

struct EntropyResult {
    double loss = 0;
    NaiveInputs gradients; ///< of parameters
};

std::vector<double> over_batch(const AttentionShape& s, const std::vector<double>& values, double factor) {
    std::vector<double> sums(values.size() / s.batch);
    for (std::size_t i = 0; i < values.size(); ++i) sums[i % sums.size()] += values[i] / factor;
    return sums;
}

/// The loss and its gradients, which are added to `start`.
EntropyResult entropy_on_device(const StudentCase& c, const NaiveInputs& in, NaiveKeys counted, bool gradients,
                                double start = 0) {
    const AttentionShape& s = c.shape;
    const CudaStudent run(c, in);
    run.forward();
    const auto log_sum = poisoned_on_device(c.statistic_rows() * s.length);
    {
        const DeviceArray<unsigned char> workspace(cuda::softmax_attention_workspace(s));
        const auto y = poisoned_on_device(c.rows() * c.query_width());
        cuda::softmax_attention(s, run.inputs(), y.data(), log_sum.data(), {workspace.data(), workspace.bytes()},
                                nullptr);
        cuda::check(cudaStreamSynchronize(nullptr), "softmax_attention");
    }
    const auto filled = [&](std::size_t count) { return on_device(std::vector<double>(count, start)); };
    const auto q_map = filled(c.statistic_rows() * c.map_size());
    const auto k_map = filled(c.statistic_rows() * c.map_size());
    const auto q_bias = filled(c.statistic_rows());
    const auto k_bias = filled(c.statistic_rows());
    const auto g = filled(c.statistic_rows());
    const cuda::StudentGradientPointers sums{q_map.data(), k_map.data(), q_bias.data(), k_bias.data(), g.data()};
    const DeviceArray<double> loss(1);
    const DeviceArray<unsigned char> workspace(cuda::attention_cross_entropy_workspace(s, c.form));
    cuda::attention_cross_entropy(s, c.form, run.parameters(), run.q.data(), run.k.data(),
                                  {log_sum.data(), counted == NaiveKeys::all ? run.normalizer.data() : nullptr},
                                  entropy_scale, gradients ? &sums : nullptr, loss.data(),
                                  {workspace.data(), workspace.bytes()}, nullptr);
    cuda::check(cudaStreamSynchronize(nullptr), "attention_cross_entropy");
    EntropyResult result;
    result.loss = loss.values().at(0);
    result.gradients.q_map = over_batch(s, q_map.values(), entropy_scale);
    result.gradients.k_map = over_batch(s, k_map.values(), entropy_scale);
    result.gradients.q_bias = over_batch(s, q_bias.values(), entropy_scale);
    result.gradients.k_bias = over_batch(s, k_bias.values(), entropy_scale);
    result.gradients.g = over_batch(s, g.values(), entropy_scale);
    return result;
}

void expect_near_sums(const std::vector<double>& actual, const std::vector<double>& expected,
                      const std::vector<double>& sizes, const std::string& what) {
    for (std::size_t h = 0; h < expected.size(); ++h)
        EXPECT_NEAR(actual[h], expected[h], entropy_gradient_tolerance * sizes[h]) << what;
}

void expect_entropy(const StudentCase& c, const NaiveInputs& in, NaiveKeys counted) {
    const std::string what = case_name(c) + (counted == NaiveKeys::far ? " far" : " all");
    const EntropyResult actual = entropy_on_device(c, in, counted, true);
    const double loss = naive_attention_cross_entropy(c.shape, c.form, in, counted).loss;
    EXPECT_NEAR(actual.loss, loss, loss_tolerance * std::abs(loss)) << what;
    EXPECT_EQ(actual.loss, entropy_on_device(c, in, counted, false).loss) << what;
    const NaiveGradients expected = naive_entropy_gradients(c.shape, c.form, in, counted);
    EXPECT_TRUE(close(actual.gradients.q_map, expected.q_map, entropy_gradient_tolerance)) << "q_map " << what;
    EXPECT_TRUE(close(actual.gradients.k_map, expected.k_map, entropy_gradient_tolerance)) << "k_map " << what;
    if (has_bias(c.form.map)) {
        expect_near_sums(actual.gradients.q_bias, expected.q_bias, expected.q_bias_size, "q_bias " + what);
        expect_near_sums(actual.gradients.k_bias, expected.k_bias, expected.k_bias_size, "k_bias " + what);
    }
    if (c.form.near == NearKeys::none || counted == NaiveKeys::far)
        for (const double g : actual.gradients.g) EXPECT_EQ(g, 0) << what;
    else
        expect_near_sums(actual.gradients.g, expected.g, expected.g_size, "g " + what);
}

constexpr NaiveKeys all_and_far[] = {NaiveKeys::all, NaiveKeys::far};

CUDA_TEST(CrossEntropyAgreesAtAllLengths) {
    for (const auto near : all_near_keys)
        for (const int window : {16, 48})
            for (const int length : {2 * window + 1, 3 * window + 7, 5 * window})
                for (const auto counted : all_and_far) {
                    const StudentCase c = student_case(near, length, window);
                    expect_entropy(c, rounded_inputs(c, 45), counted);
                }
}

CUDA_TEST(CrossEntropyAgreesForAllSizes) {
    for (const auto near : all_near_keys)
        for (const StudentCase& c : size_cases(near))
            for (const auto counted : all_and_far) expect_entropy(c, rounded_inputs(c, 46), counted);
}

CUDA_TEST(CrossEntropyAgreesForAllFeatureMaps) {
    for (const auto near : all_near_keys)
        for (const auto map : maps_with_a_twin())
            for (const bool affine : {false, true})
                for (const auto counted : all_and_far) {
                    StudentCase c = student_case(near, 75, 16, 32, 32);
                    c.form.map = map;
                    c.form.affine = affine;
                    expect_entropy(c, rounded_inputs(c, 47), counted);
                }
}

CUDA_TEST(CrossEntropyFindsEachHeadsKeys) {
    for (const int kv_heads : {1, 2, 4}) {
        StudentCase c = student_case(NearKeys::terrace, 70, 16);
        c.shape.batch = 2;
        c.shape.heads = 4;
        c.shape.kv_heads = kv_heads;
        expect_entropy(c, rounded_inputs(c, 48), NaiveKeys::all);
    }
}

CUDA_TEST(CrossEntropyIsNothingWhereNothingIsFar) {
    const StudentCase c = student_case(NearKeys::terrace, 32, 16);
    const EntropyResult actual = entropy_on_device(c, rounded_inputs(c, 49), NaiveKeys::far, true);
    EXPECT_EQ(actual.loss, 0);
    for (const double x : actual.gradients.q_map) EXPECT_EQ(x, 0);
    for (const double x : actual.gradients.k_map) EXPECT_EQ(x, 0);
}

CUDA_TEST(CrossEntropyGradientsAreAdded) {
    const StudentCase c = student_case(NearKeys::sliding, 75, 16);
    const NaiveInputs in = rounded_inputs(c, 50);
    const EntropyResult once = entropy_on_device(c, in, NaiveKeys::all, true);
    const EntropyResult more = entropy_on_device(c, in, NaiveKeys::all, true, entropy_scale);
    for (std::size_t i = 0; i < once.gradients.q_map.size(); ++i)
        EXPECT_NEAR(more.gradients.q_map[i], once.gradients.q_map[i] + 1, 1e-4);
    for (std::size_t i = 0; i < once.gradients.g.size(); ++i)
        EXPECT_NEAR(more.gradients.g[i], once.gradients.g[i] + 1, 1e-4);
}

/// Sharp maps leave some far weights below 1e-12: their logarithm is clamped and passes no gradient.
CUDA_TEST(CrossEntropyClampsVanishingWeights) {
    StudentCase c = student_case(NearKeys::sliding, 75, 16, 32, 32);
    c.form.map = FeatureMapKind::hedgehog_half;
    NaiveInputs in = rounded_inputs(c, 51);
    for (auto* map : {&in.q_map, &in.k_map})
        for (double& x : *map) x *= 40;
    const NaiveCrossEntropy expected = naive_attention_cross_entropy(c.shape, c.form, in);
    ASSERT_GT(expected.clamped_mass, 1.0); // of the 150 that all queries give
    const EntropyResult actual = entropy_on_device(c, in, NaiveKeys::all, true);
    EXPECT_NEAR(actual.loss, expected.loss, 2e-2 * expected.loss);
    const NaiveGradients gradients = naive_entropy_gradients(c.shape, c.form, in, NaiveKeys::all);
    EXPECT_TRUE(close(actual.gradients.q_map, gradients.q_map, 5e-2));
    EXPECT_TRUE(close(actual.gradients.k_map, gradients.k_map, 5e-2));
}

CUDA_TEST(CrossEntropyKeepsNaN) {
    const StudentCase c = student_case(NearKeys::terrace, 75, 16);
    NaiveInputs in = rounded_inputs(c, 52);
    in.k[naive_key(c.shape, 0, 3, 0)] = std::nan("");
    EXPECT_TRUE(std::isnan(entropy_on_device(c, in, NaiveKeys::all, false).loss));
}

/// The reference itself.
TEST(NaiveEntropyGradients, AgreeWithFiniteDifferences) {
    for (const auto near : all_near_keys)
        for (const auto map : {FeatureMapKind::hedgehog, FeatureMapKind::exp_dim, FeatureMapKind::pos_elu})
            for (const bool affine : {false, true})
                for (const auto counted : all_and_far) {
                    StudentCase c = student_case(near, 29, 8, 6, 6);
                    c.form.map = map;
                    c.form.affine = affine;
                    NaiveInputs in = random_inputs(c, 45);
                    const NaiveGradients actual = naive_entropy_gradients(c.shape, c.form, in, counted);
                    const auto loss = [&] { return naive_attention_cross_entropy(c.shape, c.form, in, counted).loss; };
                    const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient,
                                           const char* what) {
                        const auto places = spread_indices(x.size(), 5);
                        EXPECT_TRUE(close(picked(gradient, places), central_differences(loss, x, places, 1e-6), 2e-6))
                            << what << " " << case_name(c);
                    };
                    check(in.q_map, actual.q_map, "q_map");
                    check(in.k_map, actual.k_map, "k_map");
                    if (has_bias(map)) check(in.q_bias, actual.q_bias, "q_bias");
                    if (near != NearKeys::none && counted == NaiveKeys::all) check(in.g, actual.g, "g");
                }
}

} // namespace
} // namespace lolcats::test
