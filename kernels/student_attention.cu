#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/online_softmax.cuh"
#include "kernels/cuda/student.cuh"
#include "kernels/cuda/sum.cuh"
#include "kernels/floors.hpp"

namespace lolcats::cuda {

namespace {

constexpr int largest_window = 128;
constexpr float smallest_lambda = 1e-30F; ///< near weights are divided by lambda, so that one sum holds both kinds

/// What is kept between the steps of the forward pass.
struct ForwardMemory {
    PackedKeys keys;
    float* losses; ///< [B H, chunks, w / 16]
    // For the heads at work:
    BFloat* q;      ///< [count, T, d]
    BFloat* phi_q;  ///< [count, T, d']
    BFloat* phi_k;  ///< [count, T, d']
    BFloat* states; ///< [count, chunks, d', d]
    float* sums;    ///< [count, chunks, d']

    static std::size_t losses_a_head(const AttentionShape& shape, const StudentForm& form) {
        return static_cast<std::size_t>(chunk_count(shape.length, form.window)) * (form.window / 16);
    }

    ForwardMemory(const AttentionShape& shape, const StudentForm& form, std::size_t count, Arena& arena)
        : keys(shape, arena), losses(arena.take<float>(losses_a_head(shape, form) * shape.batch * shape.heads)) {
        const std::size_t p = features(form.map, form.feature_dim);
        const std::size_t d = shape.head_dim;
        const std::size_t rows = count * shape.length;
        const std::size_t chunks = count * chunk_count(shape.length, form.window);
        q = arena.take<BFloat>(rows * d);
        phi_q = arena.take<BFloat>(rows * p);
        phi_k = arena.take<BFloat>(rows * p);
        states = arena.take<BFloat>(chunks * p * d);
        sums = arena.take<float>(chunks * p);
    }
};

struct StudentArguments {
    Heads heads;
    StudentForm form;
    const float* window_factors;
    ForwardMemory memory;
    float* y;
    float* normalizer;
    const float* teacher; ///< null unless the squared error is wanted
    float error_scale;
    float* dy;
};

/// The block's shared memory. `own` first holds K and V of the chunk, which the far state replaces.
template <int D, int P>
struct SharedTiles {
    BFloat* other; ///< K then V [w, D], of the chunk before, or without near keys V of the chunk itself
    BFloat* own;   ///< K then V [w, D], then the state [P, D]
    BFloat* phi;   ///< [w, P], of the chunk in `other`, where its keys can be far

    __device__ SharedTiles(BFloat* memory, int w)
        : other(memory), own(other + 2 * w * pitch(D)), phi(own + (2 * w > P ? 2 * w : P) * pitch(D)) {}

    static std::size_t bytes(const StudentForm& form) {
        const int w = form.window;
        const int elements =
            (2 * w + (2 * w > P ? 2 * w : P)) * pitch(D) + (has_local_far(form.near) ? w * pitch(P) : 0);
        return static_cast<std::size_t>(elements) * sizeof(BFloat);
    }
};

/// Adds 16 near keys to the outputs of 16 queries; `visible(row, column)` says which pairs count.
template <int D, class Visible>
__device__ void add_near_keys(const Pair (&q)[D / 16][4], const BFloat* keys, const BFloat* values, float scale,
                              const Visible& visible, OnlineSoftmax& softmax, float (&y)[D / 8][4]) {
    float scores[2][4];
    clear(scores);
    multiply_transposed<D, 16>(scores, q, keys, pitch(D));
    for_each_element(
        scores, [&](int row, int column, float& score) { score = visible(row, column) ? score * scale : no_score; });
    float rescale[2];
    softmax.update(scores, rescale);
    if (__any_sync(0xffffffffU, rescale[0] != 1 || rescale[1] != 1)) scale_rows(y, rescale);
    multiply_step<D>(y, scores, values, pitch(D));
}

/// Adds phi . z to the lane's parts of the sums of rows g and g + 8.
__device__ void add_state_sum(const Pair (&phi)[4], const float* z, float (&total)[2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = *reinterpret_cast<const float2*>(z + lane_column() + i / 2 * 8);
        total[i % 2] += low(phi[i]) * pair.x + high(phi[i]) * pair.y;
    }
}

/// Writes what a warp's queries come to: y, their normalizers, and with a teacher dy and the sum of squared errors.
template <int D>
__device__ void store_outputs(const StudentArguments& arguments, const ChunkWork<D>& work, float lambda,
                              const float (&total)[2], const float (&y)[D / 8][4]) {
    const AttentionShape& shape = work.shape;
    const int index = work.index;
    const int first = work.first + work.block16;
    float error = 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int n = first + lane_row() + 8 * r;
        if (n >= shape.length) continue;
        const std::size_t at =
            head_offset(shape, shape.heads, index) + static_cast<std::size_t>(n) * shape.heads * D + lane_column();
        float2 teacher[D / 8]; // loaded before any store, which to the compiler might change what is loaded
        if (arguments.teacher != nullptr) {
#pragma unroll
            for (int j = 0; j < D / 8; ++j)
                teacher[j] = *reinterpret_cast<const float2*>(arguments.teacher + at + 8 * j);
        }
        if (lane_column() == 0)
            arguments.normalizer[static_cast<std::size_t>(index) * shape.length + n] = total[r] * lambda;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            const float2 out = {y[j][2 * r] / total[r], y[j][2 * r + 1] / total[r]};
            *reinterpret_cast<float2*>(arguments.y + at + 8 * j) = out;
            if (arguments.teacher == nullptr) continue;
            const float2 difference = {out.x - teacher[j].x, out.y - teacher[j].y};
            error += difference.x * difference.x + difference.y * difference.y;
            const float scale = 2 * arguments.error_scale;
            *reinterpret_cast<float2*>(arguments.dy + at + 8 * j) = {scale * difference.x, scale * difference.y};
        }
    }
    if (arguments.teacher == nullptr) return;
    error = warp_sum(error);
    const int warps = arguments.form.window / 16;
    if (lane() == 0)
        arguments.memory.losses[(static_cast<std::size_t>(index) * gridDim.x + blockIdx.x) * warps + warp()] = error;
}

/// What a warp sums up for its 16 queries, with all weights divided by lambda. Members are inlined, so that the sums
/// stay in registers.
template <int D, int P>
struct ForwardWork {
    const ForwardMemory& memory;
    const ChunkWork<D> work;
    const SharedTiles<D, P> tiles;
    const Mixing factors;
    const float lambda;
    const bool has_near;
    const int other; ///< the chunk in tiles.other; negative if there is none
    const bool has_local_far_keys;
    const bool has_state;
    float y[D / 8][4];   ///< sum of weight v
    float near_total[2]; ///< near weights of rows g and g + 8
    float far_total[2];  ///< far weights, the lane's part of their sum

    __device__ __forceinline__ explicit ForwardWork(const StudentArguments& arguments)
        : memory(arguments.memory), work(arguments.heads, arguments.form), tiles(shared_memory(), work.w),
          factors(work.factors(arguments.window_factors)), lambda(fmaxf(factors.lambda, smallest_lambda)),
          has_near(work.near != NearKeys::none), other(work.chunk - (has_near ? 1 : 0)),
          has_local_far_keys(has_local_far(work.near) && other >= 0), has_state(work.chunk >= state_lag(work.near)),
          near_total{normalizer_floor<float>, normalizer_floor<float>}, far_total{0, 0} {
        clear(y);
    }

    /// Starts to copy all that the tiles hold, but for the state.
    __device__ __forceinline__ void start_copies() const {
        const BFloat* const k = work.keys(memory.keys.k);
        const BFloat* const v = work.keys(memory.keys.v);
        const int values = work.w * pitch(D); // V's place after K
        if (has_near) {
            work.template copy<D>(tiles.own, k, work.chunk);
            work.template copy<D>(tiles.own + values, v, work.chunk);
            if (other >= 0) work.template copy<D>(tiles.other, k, other);
        }
        if (other >= 0) work.template copy<D>(tiles.other + values, v, other);
        if (has_local_far_keys) work.template copy<P>(tiles.phi, work.queries(memory.phi_k, P), other);
    }

    __device__ __forceinline__ void start_state() const {
        if (has_state) copy_state<D, P>(tiles.own, memory.states, work.state_index());
    }

    /// Near keys of the chunk, then of the one before. In between, starts to copy the state to where the former were.
    __device__ __forceinline__ void add_near() {
        const int w = work.w;
        const int block16 = work.block16;
        Pair q[D / 16][4];
        work.template load<D>(q, work.queries(memory.q, D));
        const float scale = log2_e / sqrtf(static_cast<float>(D));
        OnlineSoftmax softmax;
        for (int key = 0; key <= block16; key += 16)
            add_near_keys<D>(
                q, tiles.own + key * pitch(D), tiles.own + (w + key) * pitch(D), scale,
                [=](int row, int column) { return key + column <= block16 + row; }, softmax, y);
        __syncthreads();
        start_state();
        const bool whole = work.near == NearKeys::terrace;
        for (int key = whole ? 0 : block16; other >= 0 && key < w; key += 16)
            add_near_keys<D>(
                q, tiles.other + key * pitch(D), tiles.other + (w + key) * pitch(D), scale,
                [=](int row, int column) { return whole || key + column > block16 + row; }, softmax, y);
        const float ratio = factors.gamma / lambda;
        scale_rows(y, {ratio, ratio});
#pragma unroll
        for (int r = 0; r < 2; ++r) near_total[r] = ratio * row_sum(softmax.total[r]);
    }

    /// Far keys of the chunk in tiles.other, up to each query's own place in its chunk.
    __device__ __forceinline__ void add_local_far() {
        const int block16 = work.block16;
        Pair phi[P / 16][4];
        work.template load<P>(phi, work.queries(memory.phi_q, P));
        for (int key = 0; key <= block16; key += 16) {
            float weights[2][4];
            clear(weights);
            multiply_transposed<P, 16>(weights, phi, tiles.phi + key * pitch(P), pitch(P));
            for_each_element(weights, [&](int row, int column, float& weight) {
                if (key + column > block16 + row) weight = 0;
            });
            Pair left[4];
            as_left(left, weights, 0);
            // The sum of the weights as they enter the product: where there is one key, y is its value.
#pragma unroll
            for (int i = 0; i < 4; ++i) far_total[i % 2] += low(left[i]) + high(left[i]);
            multiply_step<D>(y, left, tiles.other + (work.w + key) * pitch(D), pitch(D));
        }
    }

    /// All keys of earlier chunks at once.
    __device__ __forceinline__ void add_state() {
        const BFloat* const features = work.own(work.queries(memory.phi_q, P), P);
        const float* const z = memory.sums + work.state_index() * P;
#pragma unroll
        for (int step = 0; step < P / 16; ++step) {
            Pair phi[4];
            load_rows(phi, features + step * 16, P, work.valid());
            multiply_step<D>(y, phi, tiles.own + step * 16 * pitch(D), pitch(D));
            add_state_sum(phi, z + step * 16, far_total);
        }
    }

    /// The sum of all weights of row g + 8 r.
    __device__ __forceinline__ float total(int r) const {
        return near_total[r] + row_sum(far_total[r]);
    }
};

/// One block: one chunk of one head's queries, a warp 16 of them: near keys, then the far keys that are not in the
/// state, then the state.
template <int D, int P>
__global__ __launch_bounds__(2 * largest_window) void student_attention_kernel(StudentArguments arguments) {
    ForwardWork<D, P> forward(arguments);
    forward.start_copies();
    wait_for_copies_of_block();
    if (forward.has_near)
        forward.add_near();
    else
        forward.start_state();
    if (forward.has_local_far_keys) forward.add_local_far();
    if (forward.has_state) {
        wait_for_copies_of_block();
        forward.add_state();
    }
    store_outputs<D>(arguments, forward.work, forward.lambda, {forward.total(0), forward.total(1)}, forward.y);
}

/// Blocks: chunks x count of 2 w threads; shared memory (2 w + max(2 w, d')) (d + 8) bf16, 68 KiB at w = 64, d = d' =
/// 128, and w (d' + 8) more unless for the terrace. Moves, a row: q, phi_q, y, for the loss teacher and dy, k and v
/// twice, and 2 d' d / w bytes of state; (4 to 8) w d + 2 d' d FLOP.
void launch_student_attention(const StudentArguments& arguments, cudaStream_t stream) {
    const Heads& heads = arguments.heads;
    const StudentForm& form = arguments.form;
    const dim3 blocks(static_cast<unsigned>(chunk_count(heads.shape.length, form.window)),
                      static_cast<unsigned>(heads.count));
    for_sizes(heads.shape, form, [&]<int D, int P>() {
        launch("student_attention", student_attention_kernel<D, P>, blocks, 2 * form.window,
               SharedTiles<D, P>::bytes(form), stream, arguments);
    });
}

} // namespace

namespace {

/// What near_keys asks for at w = d = 128, the most of all kernels.
constexpr int largest_shared_memory = 6 * 128 * pitch(128) * static_cast<int>(sizeof(BFloat));

/// GPUs before Hopper and those of workstations grant a block less. Without a GPU, as in planning, it is not asked.
bool grants_shared_memory() {
    static const bool granted = [] {
        int device = 0;
        int most = 0;
        if (cudaGetDevice(&device) != cudaSuccess ||
            cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) {
            (void)cudaGetLastError();
            return true;
        }
        return most >= largest_shared_memory;
    }();
    return granted;
}

} // namespace

bool supports(const AttentionShape& shape, const StudentForm& form) {
    return supports(shape) && grants_shared_memory() && supports(form.map) && form.window >= 16 &&
           form.window <= largest_window && form.window % 16 == 0 && is_one_of(FeatureDims(), form.feature_dim) &&
           is_one_of(FeatureCounts(), features(form.map, form.feature_dim));
}

std::size_t student_attention_workspace(const AttentionShape& shape, const StudentForm& form) {
    return workspace_bytes<ForwardMemory>(shape, form);
}

void student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameterPointers& parameters,
                       const AttentionInputs& inputs, float* y, float* normalizer, const SquaredError* error,
                       const Workspace& workspace, cudaStream_t stream) {
    if (!supports(shape, form)) throw std::invalid_argument("student_attention: this shape has no CUDA twin");
    Arena arena(workspace);
    const int count = heads_at_a_time<ForwardMemory>(shape, form);
    const ForwardMemory memory(shape, form, count, arena);
    const MapPointers q_map = map_pointers(form, parameters.q_map, parameters.q_bias);
    const MapPointers k_map = map_pointers(form, parameters.k_map, parameters.k_bias);
    pack_keys(shape, inputs, memory.keys, stream);
    const int all = shape.batch * shape.heads;
    for (int first = 0; first < all; first += count) {
        const Heads heads{shape, first, first + count < all ? count : all - first};
        pack_heads(shape, shape.heads, first, heads.count, inputs.q, memory.q, stream);
        // Short sequences have no far keys.
        if (has_local_far(form.near) || chunk_count(shape.length, form.window) > state_lag(form.near)) {
            feature_map_forward(heads, q_map, PackedRows::queries, memory.q, memory.phi_q, stream);
            feature_map_forward(heads, k_map, PackedRows::keys, memory.keys.k, memory.phi_k, stream);
            scan_states(heads, form, Direction::forward, memory.phi_k, PackedRows::keys, memory.keys.v, nullptr,
                        memory.states, memory.sums, stream);
        }
        StudentArguments arguments{heads, form, parameters.window_factors, memory, y, normalizer, nullptr, 0, nullptr};
        if (error != nullptr) {
            arguments.teacher = error->teacher;
            arguments.error_scale = error->scale;
            arguments.dy = error->dy;
        }
        launch_student_attention(arguments, stream);
    }
    if (error == nullptr) return;
    sum_parts(memory.losses, ForwardMemory::losses_a_head(shape, form) * all, error->loss, stream);
}

} // namespace lolcats::cuda
