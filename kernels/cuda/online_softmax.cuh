#pragma once
/// Softmax of rows whose scores come tile by tile. A row of a tile, a product's result, is spread over four lanes.
#include "kernels/cuda/fragments.cuh"

namespace lolcats::cuda {

constexpr float log2_e = 1.4426950408889634F;
constexpr float no_score = -1e30F; ///< of a key that the query does not see: its exponential is 0

/// The online softmax of 16 rows; a lane has parts of the rows g and g + 8. Scores come times log2(e).
struct OnlineSoftmax {
    float maximum[2] = {no_score, no_score};
    float total[2] = {0, 0}; ///< this lane's part

    /// Turns a tile's scores into exponentials relative to the largest score so far. Sums of earlier exponentials must
    /// be multiplied by `rescale`.
    template <int Tiles>
    __device__ void update(float (&scores)[Tiles][4], float (&rescale)[2]) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float top = maximum[r];
#pragma unroll
            for (int j = 0; j < Tiles; ++j) top = fmaxf(top, fmaxf(scores[j][2 * r], scores[j][2 * r + 1]));
            top = row_maximum(top);
            rescale[r] = exp2_approximate(maximum[r] - top);
            maximum[r] = top;
            float sum = 0;
#pragma unroll
            for (int j = 0; j < Tiles; ++j)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; ++e) {
                    scores[j][e] = exp2_approximate(scores[j][e] - top);
                    sum += scores[j][e];
                }
            total[r] = total[r] * rescale[r] + sum;
        }
    }
};

/// Multiplies row g + 8 r by factor[r].
template <int Tiles>
__device__ inline void scale_rows(float (&c)[Tiles][4], const float (&factor)[2]) {
    for_each_element(c, [&](int row, int, float& value) { value *= row < 8 ? factor[0] : factor[1]; });
}

} // namespace lolcats::cuda
