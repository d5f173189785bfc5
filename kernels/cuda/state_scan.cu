#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/student.cuh"

namespace lolcats::cuda {

namespace {

struct ScanArguments {
    Heads heads;
    StudentForm form;
    Direction direction;
    const BFloat* phi; ///< [count, T, P]
    PackedRows value_rows;
    const BFloat* values;
    const float* weights; ///< null, or [count, T]
    BFloat* states;
    float* sums;
};

/// The part of a state that one block adds up: 64 x 64 of it, or all if it is smaller.
template <int D, int P>
struct Slice {
    static constexpr int rows = P < 64 ? P : 64;
    static constexpr int columns = D < 64 ? D : 64;
    static constexpr int threads = rows / 16 * warp_size;

    static std::size_t shared(int window) {
        return static_cast<std::size_t>(2 * window) * (pitch(rows) + pitch(columns)) * sizeof(BFloat);
    }
};

/// sum over the chunk's rows of weight phi for one feature.
__device__ float weighted_column_sum(const BFloat* column, int row_length, int rows, const float* weights) {
    float sum = 0;
    for (int i = 0; i < rows; ++i)
        sum += __bfloat162float(column[i * row_length]) * (weights == nullptr ? 1 : weights[i]);
    return sum;
}

/// One block: one slice of one head's state, kept in registers while the chunks are added one after the other; the next
/// chunk is copied while this one is added.
template <int D, int P>
__global__ __launch_bounds__((Slice<D, P>::threads)) void scan_states_kernel(ScanArguments arguments) {
    using S = Slice<D, P>;
    const Heads& heads = arguments.heads;
    const int length = heads.shape.length;
    const int w = arguments.form.window;
    const int chunks = chunk_count(length, w);
    const int lag = state_lag(arguments.form.near);
    const bool backward = arguments.direction == Direction::backward;
    const int local = static_cast<int>(blockIdx.y);
    const int first_row = static_cast<int>(blockIdx.x) % (P / S::rows) * S::rows;
    const int first_column = static_cast<int>(blockIdx.x) / (P / S::rows) * S::columns;
    const BFloat* const phi = head_rows(heads, PackedRows::queries, arguments.phi, local, P) + first_row;
    const BFloat* const values = head_rows(heads, arguments.value_rows, arguments.values, local, D) + first_column;
    const float* const weights =
        arguments.weights == nullptr ? nullptr : head_rows(heads, PackedRows::queries, arguments.weights, local, 1);
    BFloat* const states = arguments.states + static_cast<std::size_t>(local) * chunks * P * D;
    float* const sums = arguments.sums + static_cast<std::size_t>(local) * chunks * P;

    const int buffer_elements = w * (pitch(S::rows) + pitch(S::columns));
    const auto buffer = [&](int step) { return shared_memory() + step % 2 * buffer_elements; };
    const auto chunk_at = [&](int step) { return backward ? chunks - 1 - step : step; };
    const auto copy = [&](int step) {
        const int row = chunk_at(step) * w;
        copy_tile<S::rows>(buffer(step), phi + static_cast<std::size_t>(row) * P, P, w, length - row);
        copy_tile<S::columns>(buffer(step) + w * pitch(S::rows), values + static_cast<std::size_t>(row) * D, D, w,
                              length - row);
        commit_copies();
    };

    float state[S::columns / 8][4];
    clear(state);
    float sum = 0;
    const int steps = chunks - lag;
    if (steps > 0) copy(0);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<0>();
        __syncthreads();
        if (step + 1 < steps) copy(step + 1);
        const BFloat* const phi_tile = buffer(step);
        const BFloat* const value_tile = phi_tile + w * pitch(S::rows);
        for (int row = 0; row < w; row += 16) {
            Pair left[4];
            load_left_transposed(left, phi_tile + row * pitch(S::rows) + warp() * 16, pitch(S::rows));
            multiply_step<S::columns>(state, left, value_tile + row * pitch(S::columns), pitch(S::columns));
        }
        const int from = chunk_at(step);
        const int to = backward ? from - lag : from + lag;
        BFloat* const out = states + static_cast<std::size_t>(to) * P * D +
                            static_cast<std::size_t>(first_row + warp() * 16 + lane_row()) * D + first_column +
                            lane_column();
#pragma unroll
        for (int j = 0; j < S::columns / 8; ++j) {
            *reinterpret_cast<Pair*>(out + 8 * j) = pack(state[j][0], state[j][1]);
            *reinterpret_cast<Pair*>(out + 8 * D + 8 * j) = pack(state[j][2], state[j][3]);
        }
        const int feature = static_cast<int>(threadIdx.x);
        if (first_column == 0 && feature < S::rows) {
            sum += weighted_column_sum(phi_tile + feature, pitch(S::rows), min(w, length - from * w),
                                       weights == nullptr ? nullptr : weights + from * w);
            sums[static_cast<std::size_t>(to) * P + first_row + feature] = sum;
        }
    }
}

} // namespace

/// Blocks: d' d / 4096 x count of 128 threads; shared memory 4 w x 72 bf16, 36 KiB at w = 64. Moves 2 (d' + d) bytes a
/// row in, times the slices that share it, and 2 d' d / w a row out; 2 d' d FLOP a row.
void scan_states(const Heads& heads, const StudentForm& form, Direction direction, const BFloat* phi,
                 PackedRows value_rows, const BFloat* values, const float* weights, BFloat* states, float* sums,
                 cudaStream_t stream) {
    for_sizes(heads.shape, form, [&]<int D, int P>() {
        using S = Slice<D, P>;
        const dim3 blocks(P / S::rows * (D / S::columns), static_cast<unsigned>(heads.count));
        launch("scan_states", scan_states_kernel<D, P>, blocks, S::threads, S::shared(form.window), stream,
               ScanArguments{heads, form, direction, phi, value_rows, values, weights, states, sums});
    });
}

} // namespace lolcats::cuda
