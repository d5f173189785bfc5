#pragma once
/// All feature maps of the linear branch, phi(x) = max(activation(x W + b), 1e-12) (paper section 3.1).
///
/// A map is an enumerator and its `FeatureMap`; names, options, sizes, dispatch and tests follow from these.
/// CONTRIBUTING.md shows how to add one.
#include "kernels/exponential.hpp"
#include "kernels/floors.hpp"
#include "kernels/row.hpp"

#include <array>
#include <string>
#include <vector>

namespace lolcats {

enum class FeatureMapKind { hedgehog, hedgehog_half, t2r, exp_dim, exp_dim_half, pos_elu, dpfp, count };

/// dphi behind the clamp: zero where phi is clamped.
template <class Real>
struct FeatureGradient {
    const Real* phi;
    const Real* dphi;

    LOLCATS_FUNCTION Real operator[](int j) const { return phi[j] > feature_floor<Real> ? dphi[j] : Real(0); }
    LOLCATS_FUNCTION FeatureGradient operator+(int first) const { return {phi + first, dphi + first}; }
};

/// The activation of one map, a row at a time; `name`, `forward` and `backward` are each map's own.
template <FeatureMapKind kind>
struct FeatureMap;

/// Defaults of a map.
struct CommonMap {
    static constexpr int outputs = 1;     ///< d' / f
    static constexpr bool square = false; ///< W is d x d: f is the head dimension
    static constexpr bool bias = false;   ///< b is one trained scalar a head, not zero
};

namespace detail {

/// out = exp(sign (z - extreme)), the exponent's largest value being 0; returns the sum.
template <class Real>
LOLCATS_INLINE_FUNCTION Real shifted_exponentials(int f, Real sign, const Real* z, Real* out) {
    Real top = sign * z[0];
    LOLCATS_OMP("omp simd reduction(max : top)") // from 0: f numbers, not f - 1, are whole vectors
    for (int j = 0; j < f; ++j) top = sign * z[j] > top ? sign * z[j] : top;
    return tile::exponentials(f, sign, z, top, out);
}

template <class Real>
LOLCATS_INLINE_FUNCTION void softmax_half(int f, Real sign, const Real* z, Real* out) {
    const Real scale = Real(1) / shifted_exponentials(f, sign, z, out);
    for (int j = 0; j < f; ++j) out[j] *= scale;
}

/// [softmax(z), softmax(-z)] with one exponential an element, as exp(-z) = 1 / exp(z). Shifted by the middle of the z,
/// neither overflows unless their range is wider than single precision's.
template <class Real>
LOLCATS_INLINE_FUNCTION void both_softmax_halves(int f, const Real* z, Real* phi) {
    Real top = z[0];
    Real bottom = z[0];
    LOLCATS_OMP("omp simd reduction(max : top) reduction(min : bottom)")
    for (int j = 0; j < f; ++j) {
        top = z[j] > top ? z[j] : top;
        bottom = z[j] < bottom ? z[j] : bottom;
    }
    constexpr Real widest = 160;
    if (!(top - bottom < widest)) {
        softmax_half(f, Real(-1), z, phi + f);
        return softmax_half(f, Real(1), z, phi);
    }
    const Real sum = tile::exponentials(f, Real(1), z, (top + bottom) / 2, phi);
    Real inverse_sum = 0;
    LOLCATS_OMP("omp simd reduction(+ : inverse_sum)")
    for (int j = 0; j < f; ++j) {
        phi[f + j] = Real(1) / phi[j];
        inverse_sum += phi[f + j];
    }
    const Real scale = Real(1) / sum;
    const Real inverse_scale = Real(1) / inverse_sum;
    LOLCATS_OMP("omp simd")
    for (int j = 0; j < f; ++j) {
        phi[j] *= scale;
        phi[f + j] *= inverse_scale;
    }
}

/// dz += sign * phi o (dphi - phi . dphi)
template <class Real>
LOLCATS_INLINE_FUNCTION void softmax_half_gradient(int f, Real sign, const Real* phi, FeatureGradient<Real> dphi,
                                                   Real* dz) {
    Real mean = 0;
    LOLCATS_OMP("omp simd reduction(+ : mean)")
    for (int j = 0; j < f; ++j) mean += phi[j] * dphi[j];
    for (int j = 0; j < f; ++j) dz[j] += sign * phi[j] * (dphi[j] - mean);
}

/// dz += sign * phi o dphi, less the whole sum at the extreme of z that the exponent was shifted by (ties share it).
template <class Real>
LOLCATS_INLINE_FUNCTION void exp_half_gradient(int f, Real sign, const Real* z, const Real* phi,
                                               FeatureGradient<Real> dphi, Real* dz) {
    Real extreme = z[0];
    for (int j = 1; j < f; ++j) extreme = sign * z[j] > sign * extreme ? z[j] : extreme;
    Real total = 0;
    int ties = 0;
    for (int j = 0; j < f; ++j) {
        const Real term = phi[j] * dphi[j];
        dz[j] += sign * term;
        total += term;
        ties += z[j] == extreme ? 1 : 0;
    }
    for (int j = 0; j < f; ++j) dz[j] -= z[j] == extreme ? sign * total / static_cast<Real>(ties) : Real(0);
}

} // namespace detail

// `forward` writes phi [outputs * f] from z [f] = x W + b; the clamp follows. `backward` adds to dz [f], which is zero.

/// The softmax of one half (Zhang et al. 2024, arXiv 2402.04347).
template <>
struct FeatureMap<FeatureMapKind::hedgehog_half> : CommonMap {
    static constexpr const char* name = "hedgehog_half";

    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        detail::softmax_half(f, Real(1), z, phi);
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real*, const Real* phi, FeatureGradient<Real> dphi, Real* dz) {
        detail::softmax_half_gradient(f, Real(1), phi, dphi, dz);
    }
};

/// [softmax(z), softmax(-z)]: Hedgehog, the paper's choice.
template <>
struct FeatureMap<FeatureMapKind::hedgehog> : CommonMap {
    static constexpr const char* name = "hedgehog";
    static constexpr int outputs = 2;

    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        detail::both_softmax_halves(f, z, phi);
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real*, const Real* phi, FeatureGradient<Real> dphi, Real* dz) {
        detail::softmax_half_gradient(f, Real(-1), phi + f, dphi + f, dz);
        detail::softmax_half_gradient(f, Real(1), phi, dphi, dz);
    }
};

/// exp(z - max z)
template <>
struct FeatureMap<FeatureMapKind::exp_dim_half> : CommonMap {
    static constexpr const char* name = "exp_dim_half";

    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        detail::shifted_exponentials(f, Real(1), z, phi);
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real* z, const Real* phi, FeatureGradient<Real> dphi, Real* dz) {
        detail::exp_half_gradient(f, Real(1), z, phi, dphi, dz);
    }
};

/// [exp(z - max z), exp(min z - z)]
template <>
struct FeatureMap<FeatureMapKind::exp_dim> : CommonMap {
    static constexpr const char* name = "exp_dim";
    static constexpr int outputs = 2;

    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        detail::shifted_exponentials(f, Real(-1), z, phi + f);
        detail::shifted_exponentials(f, Real(1), z, phi);
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real* z, const Real* phi, FeatureGradient<Real> dphi, Real* dz) {
        detail::exp_half_gradient(f, Real(-1), z, phi + f, dphi + f, dz);
        detail::exp_half_gradient(f, Real(1), z, phi, dphi, dz);
    }
};

/// relu(z) with a bias and a square W: T2R (Kasai et al. 2021, arXiv 2103.13076).
template <>
struct FeatureMap<FeatureMapKind::t2r> : CommonMap {
    static constexpr const char* name = "t2r";
    static constexpr bool square = true;
    static constexpr bool bias = true;

    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        for (int j = 0; j < f; ++j) phi[j] = z[j] < 0 ? Real(0) : z[j]; // keeps a NaN
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real*, const Real*, FeatureGradient<Real> dphi, Real* dz) {
        for (int j = 0; j < f; ++j) dz[j] = dphi[j];
    }
};

/// 1 + elu(z) (Katharopoulos et al. 2020, arXiv 2006.16236).
template <>
struct FeatureMap<FeatureMapKind::pos_elu> : CommonMap {
    static constexpr const char* name = "pos_elu";

    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        for (int j = 0; j < f; ++j) phi[j] = z[j] > 0 ? Real(1) + z[j] : exponential(z[j]);
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real* z, const Real* phi, FeatureGradient<Real> dphi, Real* dz) {
        for (int j = 0; j < f; ++j) dz[j] = dphi[j] * (z[j] > 0 ? Real(1) : phi[j]);
    }
};

/// r_j r_{j-1}, cyclic, of r = relu([z, -z]): DPFP with nu = 1 (Schlag et al. 2021, arXiv 2102.11174).
template <>
struct FeatureMap<FeatureMapKind::dpfp> : CommonMap {
    static constexpr const char* name = "dpfp";
    static constexpr int outputs = 2;

    template <class Real>
    LOLCATS_FUNCTION static Real part(int f, const Real* z, int j) {
        const Real x = j < f ? z[j] : -z[j - f];
        return x < 0 ? Real(0) : x; // keeps a NaN
    }
    template <class Real>
    LOLCATS_FUNCTION static void forward(int f, const Real* z, Real* phi) {
        for (int j = 0; j < 2 * f; ++j) phi[j] = part(f, z, j) * part(f, z, j > 0 ? j - 1 : 2 * f - 1);
    }
    template <class Real>
    LOLCATS_FUNCTION static void backward(int f, const Real* z, const Real*, FeatureGradient<Real> dphi, Real* dz) {
        for (int j = 0; j < 2 * f; ++j) {
            const int next = j + 1 < 2 * f ? j + 1 : 0;
            const Real dr = dphi[j] * part(f, z, j > 0 ? j - 1 : 2 * f - 1) + dphi[next] * part(f, z, next);
            if (part(f, z, j) > 0) dz[j % f] += j < f ? dr : -dr;
        }
    }
};

inline constexpr int feature_map_count = static_cast<int>(FeatureMapKind::count);

inline constexpr auto all_feature_maps = [] {
    std::array<FeatureMapKind, feature_map_count> kinds{};
    for (int i = 0; i < feature_map_count; ++i) kinds[i] = static_cast<FeatureMapKind>(i);
    return kinds;
}();

/// body(FeatureMap<kind>()), for a kind known at run time. `body` runs where its caller does.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <int candidate = 0, class Body>
LOLCATS_FUNCTION constexpr auto with_feature_map(FeatureMapKind kind, const Body& body) {
    if constexpr (candidate + 1 < feature_map_count)
        if (kind != static_cast<FeatureMapKind>(candidate)) return with_feature_map<candidate + 1>(kind, body);
    return body(FeatureMap<static_cast<FeatureMapKind>(candidate)>());
}

/// True if the map adds a bias, one scalar a head.
LOLCATS_FUNCTION constexpr bool has_bias(FeatureMapKind kind) {
    return with_feature_map(kind, [](auto map) { return map.bias; });
}

/// d', the number of outputs of a map with an f-column weight.
LOLCATS_FUNCTION constexpr int features(FeatureMapKind kind, int f) {
    return with_feature_map(kind, [](auto map) { return map.outputs; }) * f;
}

/// True if f has to be the head dimension.
constexpr bool is_square(FeatureMapKind kind) {
    return with_feature_map(kind, [](auto map) { return map.square; });
}

/// f if the user gives none.
constexpr int usual_feature_dim(FeatureMapKind kind, int head_dim) {
    return is_square(kind) ? head_dim : head_dim / 2;
}

/// Throws Error for an unknown name.
FeatureMapKind feature_map_kind(const std::string& name);
const char* feature_map_name(FeatureMapKind kind);
std::vector<std::string> feature_map_names();

} // namespace lolcats
