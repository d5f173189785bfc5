#pragma once
/// The sizes that kernels are compiled for, and the way from a shape's sizes to them.
#include "kernels/cuda/attention.hpp"

#include <stdexcept>
#include <string>
#include <utility>

namespace lolcats::cuda {

using HeadDims = std::integer_sequence<int, 32, 64, 128>;           ///< d
using FeatureDims = std::integer_sequence<int, 16, 32, 64, 128>;    ///< f
using FeatureCounts = std::integer_sequence<int, 32, 64, 128, 256>; ///< d'

template <int... sizes>
constexpr bool is_one_of(std::integer_sequence<int, sizes...>, int value) {
    return ((value == sizes) || ...);
}

/// Calls `body.template operator()<value>()`. Throws std::invalid_argument, which names `what`, for another value.
template <int... sizes, class Body>
void for_one_of(std::integer_sequence<int, sizes...> list, const char* what, int value, const Body& body) {
    if (!is_one_of(list, value))
        throw std::invalid_argument("no kernel is compiled for a " + std::string(what) + " of " +
                                    std::to_string(value));
    ((value == sizes ? body.template operator()<sizes>() : void()), ...);
}

/// Calls `body.template operator()<d>()`.
template <class Body>
void for_head_dim(int head_dim, const Body& body) {
    for_one_of(HeadDims(), "head dimension", head_dim, body);
}

/// Calls `body.template operator()<d, d'>()`, d' being the number of features.
template <class Body>
void for_sizes(const AttentionShape& shape, const StudentForm& form, const Body& body) {
    for_head_dim(shape.head_dim, [&]<int D>() {
        for_one_of(FeatureCounts(), "feature count", features(form.map, form.feature_dim),
                   [&]<int P>() { body.template operator()<D, P>(); });
    });
}

/// Calls `body.template operator()<d, f>()`.
template <class Body>
void for_map_sizes(int head_dim, int feature_dim, const Body& body) {
    for_head_dim(head_dim, [&]<int D>() {
        for_one_of(FeatureDims(), "feature dimension", feature_dim, [&]<int F>() { body.template operator()<D, F>(); });
    });
}

} // namespace lolcats::cuda
