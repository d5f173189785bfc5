#include "kernels/feature_map.hpp"

#include "tests/kernels/naive_attention.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lolcats::test {
namespace {

/// phi of one row, computed on the host.
template <class Real>
std::vector<double> activation(FeatureMapKind kind, const std::vector<double>& z) {
    const std::vector<Real> in(z.begin(), z.end());
    std::vector<Real> phi(features(kind, static_cast<int>(z.size())));
    feature_map_activate(kind, static_cast<int>(z.size()), in.data(), phi.data());
    return {phi.begin(), phi.end()};
}

/// z from -range / 2 to range / 2, in no order.
std::vector<double> row(int f, double range, std::uint64_t seed) {
    auto z = random_values(f, seed);
    const auto [least, most] = std::minmax_element(z.begin(), z.end());
    const double factor = range / (*most - *least);
    const double middle = (*most + *least) / 2;
    for (double& x : z) x = factor * (x - middle);
    return z;
}

/// Both halves come from one exponential an element while the range allows it, from two beyond.
TEST(Hedgehog, AgreesOverAllRanges) {
    for (const int f : {1, 3, 8, 29, 32, 64})
        for (const double range : {0.0, 1.0, 80.0, 159.0, 161.0, 180.0, 400.0}) {
            const auto z = f == 1 ? std::vector<double>{range} : row(f, range, 900 + f);
            const auto expected = naive_activation(FeatureMapKind::hedgehog, z);
            const std::string what = "f " + std::to_string(f) + ", range " + std::to_string(range);
            EXPECT_TRUE(close(activation<double>(FeatureMapKind::hedgehog, z), expected, 1e-13)) << what;
            EXPECT_TRUE(close(activation<float>(FeatureMapKind::hedgehog, z), expected, 4e-6)) << what;
        }
}

TEST(Hedgehog, ConstantRowIsUniform) {
    for (const double value : {-300.0, 0.0, 87.0, 3e5})
        for (const double phi : activation<float>(FeatureMapKind::hedgehog, std::vector<double>(16, value)))
            EXPECT_FLOAT_EQ(static_cast<float>(phi), 1.0F / 16);
}

TEST(FeatureMaps, KeepNaNWhereverItIs) {
    for (const auto kind : all_feature_maps)
        for (const int place : {0, 5, 18}) {
            auto z = random_values(19, 950);
            z[place] = std::numeric_limits<double>::quiet_NaN();
            const auto phi = activation<float>(kind, z);
            EXPECT_TRUE(std::any_of(phi.begin(), phi.end(), [](double x) { return std::isnan(x); }))
                << feature_map_name(kind) << ", place " << place;
        }
}

} // namespace
} // namespace lolcats::test
