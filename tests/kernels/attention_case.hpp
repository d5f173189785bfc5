#pragma once
/// One student's shape, form and random numbers.
#include "tests/kernels/naive_attention.hpp"
#include "tests/support/random.hpp"

#include <cmath>
#include <string>
#include <vector>

namespace lolcats::test {

inline const std::vector<NearKeys> all_near_keys = {NearKeys::terrace, NearKeys::sliding, NearKeys::none};

/// f of a small map: odd, so that tiles have rests, but where the map is square.
inline int small_feature_dim(FeatureMapKind map, int head_dim) {
    return is_square(map) ? head_dim : 5;
}

inline std::string name(NearKeys near) {
    return near == NearKeys::terrace ? "terrace" : near == NearKeys::sliding ? "sliding" : "none";
}

struct StudentCase {
    AttentionShape shape;
    StudentForm form;

    [[nodiscard]] std::size_t rows() const { return static_cast<std::size_t>(shape.batch) * shape.length; }
    [[nodiscard]] std::size_t query_width() const { return static_cast<std::size_t>(shape.heads) * shape.head_dim; }
    [[nodiscard]] std::size_t kv_width() const { return static_cast<std::size_t>(shape.kv_heads) * shape.head_dim; }
    [[nodiscard]] std::size_t statistic_rows() const { return static_cast<std::size_t>(shape.batch) * shape.heads; }
    [[nodiscard]] std::size_t map_size() const { return static_cast<std::size_t>(shape.head_dim) * form.feature_dim; }
};

/// Scores, features and mixing factors of order one, so that near and far keys both matter.
inline NaiveInputs random_inputs(const StudentCase& c, unsigned seed) {
    const double map_scale = 0.8 / std::sqrt(static_cast<double>(c.shape.head_dim));
    return {.q = random_values(c.rows() * c.query_width(), seed + 1),
            .k = random_values(c.rows() * c.kv_width(), seed + 2),
            .v = random_values(c.rows() * c.kv_width(), seed + 3),
            .q_map = random_values(c.shape.heads * c.map_size(), seed + 4, map_scale),
            .k_map = random_values(c.shape.heads * c.map_size(), seed + 5, map_scale),
            .q_bias = random_values(c.shape.heads, seed + 6, 0.3),
            .k_bias = random_values(c.shape.heads, seed + 7, 0.3),
            .g = random_values(c.shape.heads, seed + 8)};
}

/// The same with q, k and v as tensor cores see them. Of two near scores that are all but equal, rounding might make
/// the other one the maximum, and the gradient through it would go elsewhere.
inline NaiveInputs rounded_inputs(const StudentCase& c, unsigned seed) {
    NaiveInputs in = random_inputs(c, seed);
    in.q = rounded_to_bf16(in.q);
    in.k = rounded_to_bf16(in.k);
    in.v = rounded_to_bf16(in.v);
    return in;
}

} // namespace lolcats::test
