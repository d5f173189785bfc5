#pragma once
/// kernels/cuda/ptx.cuh for kernels executed on the host, after the PTX ISA's tables of which lane holds what.
#include "tests/support/cuda_on_host.hpp"

namespace lolcats::cuda {

using Pair = unsigned;

namespace on_host {

inline float element(Pair pair, int index) {
    return std::bit_cast<float>(index == 0 ? pair << 16 : pair & 0xffff0000U);
}

struct LoadMatrices {
    Pair (&pairs)[4];
    const __nv_bfloat16* row;
};

inline void load_matrices(Pair (&pairs)[4], const __nv_bfloat16* row, bool transposed) {
    cuda_on_host::check_shared(row, 16);
    LoadMatrices mine{pairs, row};
    cuda_on_host::warp_operation(transposed ? "ldmatrix.trans" : "ldmatrix", &mine, [=](void* const(&lanes)[32]) {
        const auto lane = [&](int l) -> LoadMatrices& { return *static_cast<LoadMatrices*>(lanes[l]); };
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i) {
                Pair pair = 0;
                for (int e = 0; e < 2; ++e) {
                    const int row = l / 4;
                    const int column = 2 * (l % 4) + e;
                    const auto value = transposed ? lane(8 * i + column).row[row] : lane(8 * i + row).row[column];
                    pair |= static_cast<Pair>(value.bits) << (16 * e);
                }
                lane(l).pairs[i] = pair;
            }
    });
}

struct MultiplyAdd {
    float (&c)[4];
    const Pair (&a)[4];
    Pair b[2];
};

inline void multiply_add(void* const (&lanes)[32]) {
    const auto lane = [&](int l) -> MultiplyAdd& { return *static_cast<MultiplyAdd*>(lanes[l]); };
    using Row = float __attribute__((vector_size(32)));
    float a[16][16];
    Row b[16];
    for (int l = 0; l < 32; ++l)
        for (int e = 0; e < 2; ++e) {
            const int g = l / 4;
            const int t = 2 * (l % 4) + e;
            for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 8] = element(lane(l).a[i], e);
            for (int i = 0; i < 2; ++i) b[t + i * 8][g] = element(lane(l).b[i], e);
        }
    Row sums[16] = {};
    for (int k = 0; k < 16; ++k)
        for (int m = 0; m < 16; ++m) sums[m] += a[m][k] * b[k];
    for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) lane(l).c[i] += sums[l / 4 + i / 2 * 8][2 * (l % 4) + i % 2];
}

} // namespace on_host

inline void load_matrices(Pair (&pairs)[4], const __nv_bfloat16* row) {
    on_host::load_matrices(pairs, row, false);
}
inline void load_matrices_transposed(Pair (&pairs)[4], const __nv_bfloat16* row) {
    on_host::load_matrices(pairs, row, true);
}
inline void multiply_add(float (&c)[4], const Pair (&a)[4], Pair b0, Pair b1) {
    on_host::MultiplyAdd mine{c, a, {b0, b1}};
    cuda_on_host::warp_operation("mma", &mine, [](void* const(&lanes)[32]) { on_host::multiply_add(lanes); });
}
inline void copy_16_bytes(void* shared, const void* global, bool valid) {
    cuda_on_host::copy_16_bytes(shared, global, valid);
}
inline void commit_copies() {
    cuda_on_host::commit_copies();
}
template <int Open>
void wait_for_copies() {
    cuda_on_host::wait_for_copies(Open);
}
inline float exp2_approximate(float x) {
    return std::exp2(x);
}

} // namespace lolcats::cuda
