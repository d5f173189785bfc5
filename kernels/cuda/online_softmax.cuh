#pragma once
/// Softmax of rows whose scores come tile by tile, each row in the four lanes of a product's result that hold it.
#include "kernels/cuda/fragments.cuh"

namespace lolcats::cuda {

constexpr float log2_e = 1.4426950408889634F;
constexpr float no_score = -1e30F; ///< of a key that is not seen: its exponential is 0

/// The online softmax of 16 rows, two of them a lane: g and g + 8.
struct OnlineSoftmax {
    float maximum[2] = {no_score, no_score}; ///< in units of 1 / log2(e)
    float total[2] = {0, 0};                 ///< this lane's part

    /// Turns scores into exponentials; returns what earlier results must be multiplied with.
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

/// Multiplies the rows g and g + 8.
template <int Tiles>
__device__ inline void scale_rows(float (&c)[Tiles][4], const float (&factor)[2]) {
    for_each_element(c, [&](int row, int, float& value) { value *= row < 8 ? factor[0] : factor[1]; });
}

} // namespace lolcats::cuda
