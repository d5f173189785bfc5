#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/online_softmax.cuh"
#include "kernels/cuda/student.cuh"
#include "kernels/cuda/sum.cuh"

#include <initializer_list>
#include <type_traits>

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

/// Keys and values of the chunk before, and of the chunk; the far state takes the place of the latter.
template <int D, int P>
struct StudentTiles {
    BFloat* other; ///< K then V [w, D], of the chunk before, or without near keys V of the chunk itself
    BFloat* own;   ///< K then V [w, D], then the state [P, D]
    BFloat* phi;   ///< [w, P], of the chunk in `other`, where its keys can be far

    __device__ StudentTiles(BFloat* memory, int w)
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
    Pair weights[4];
    as_left(weights, scores, 0);
    multiply_step<D>(y, weights, values, pitch(D));
}

/// phi . z of the lane's parts of rows g and g + 8.
__device__ void add_state_sum(const Pair (&phi)[4], const float* z, float (&total)[2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = *reinterpret_cast<const float2*>(z + lane_column() + i / 2 * 8);
        total[i % 2] += low(phi[i]) * pair.x + high(phi[i]) * pair.y;
    }
}

template <int D>
__device__ void store_outputs(const StudentArguments& arguments, int local, int first, float lambda,
                              const float (&total)[2], const float (&y)[D / 8][4]) {
    const AttentionShape& shape = arguments.heads.shape;
    const int index = arguments.heads.first + local;
    float error = 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int n = first + lane_row() + 8 * r;
        if (n >= shape.length) continue;
        const std::size_t at =
            head_offset(shape, shape.heads, index) + static_cast<std::size_t>(n) * shape.heads * D + lane_column();
        float2 teacher[D / 8]; // all before anything is stored, which for the compiler may change them
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

/// One block: one chunk of one head's queries, a warp 16 of them: near keys of the chunk and of the one before, then
/// far keys among these, then the far state.
template <int D, int P>
__global__ __launch_bounds__(2 * largest_window) void student_attention_kernel(StudentArguments arguments) {
    const Heads& heads = arguments.heads;
    const AttentionShape& shape = heads.shape;
    const NearKeys near = arguments.form.near;
    const int w = arguments.form.window;
    const int chunk = static_cast<int>(blockIdx.x);
    const int local = static_cast<int>(blockIdx.y);
    const int first = chunk * w;
    const int block16 = warp() * 16; // the warp's first query in its chunk
    const int valid = shape.length - first - block16;
    const StudentTiles<D, P> tiles(shared_memory(), w);
    const ForwardMemory& memory = arguments.memory;
    const BFloat* const k = head_rows(heads, Rows::keys, memory.keys.k, local, D);
    const BFloat* const v = head_rows(heads, Rows::keys, memory.keys.v, local, D);
    const BFloat* const phi_q = head_rows(heads, Rows::queries, memory.phi_q, local, P);
    const BFloat* const phi_k = head_rows(heads, Rows::queries, memory.phi_k, local, P);
    const std::size_t state_index = static_cast<std::size_t>(local) * gridDim.x + blockIdx.x;
    const Mixing factors = mixing(shape, arguments.form, arguments.window_factors, heads.first + local);
    const float lambda = fmaxf(factors.lambda, smallest_lambda);

    const bool has_near = near != NearKeys::none;
    const bool has_state = chunk >= state_lag(near);
    const int other = chunk - (has_near ? 1 : 0);
    const auto copy = [&](auto width, BFloat* tile, const BFloat* rows, int from) {
        constexpr int columns = decltype(width)::value;
        copy_tile<columns>(tile, rows + static_cast<std::size_t>(from) * columns, columns, w, shape.length - from);
    };
    const std::integral_constant<int, D> head_width;
    const std::integral_constant<int, P> feature_width;
    if (has_near) {
        copy(head_width, tiles.own, k, first);
        copy(head_width, tiles.own + w * pitch(D), v, first);
        if (other >= 0) copy(head_width, tiles.other, k, other * w);
    }
    if (other >= 0) {
        copy(head_width, tiles.other + w * pitch(D), v, other * w);
        if (has_local_far(near)) copy(feature_width, tiles.phi, phi_k, other * w);
    }
    wait_for_copies_of_block();

    float y[D / 8][4];
    clear(y);
    float near_total[2] = {1e-12F, 1e-12F}; // without near keys, the floor of the sum
    if (has_near) {
        Pair q[D / 16][4];
        load_rows<D>(
            q, head_rows(heads, Rows::queries, memory.q, local, D) + static_cast<std::size_t>(first + block16) * D, D,
            valid);
        const float scale = log2_e / sqrtf(static_cast<float>(D));
        OnlineSoftmax softmax;
        for (int key = 0; key <= block16; key += 16)
            add_near_keys<D>(
                q, tiles.own + key * pitch(D), tiles.own + (w + key) * pitch(D), scale,
                [=](int row, int column) { return key + column <= block16 + row; }, softmax, y);
        __syncthreads();
        if (has_state) copy_state<D, P>(tiles.own, memory.states, state_index);
        const bool whole = near == NearKeys::terrace;
        for (int key = whole ? 0 : block16; other >= 0 && key < w; key += 16)
            add_near_keys<D>(
                q, tiles.other + key * pitch(D), tiles.other + (w + key) * pitch(D), scale,
                [=](int row, int column) { return whole || key + column > block16 + row; }, softmax, y);
        const float ratio = factors.gamma / lambda;
        scale_rows(y, {ratio, ratio});
#pragma unroll
        for (int r = 0; r < 2; ++r) near_total[r] = ratio * row_sum(softmax.total[r]);
    } else if (has_state) {
        copy_state<D, P>(tiles.own, memory.states, state_index);
    }

    float far_total[2] = {0, 0};
    const BFloat* const features = phi_q + static_cast<std::size_t>(first + block16) * P;
    if (has_local_far(near) && other >= 0) {
        Pair phi[P / 16][4];
        load_rows<P>(phi, features, P, valid);
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
            multiply_step<D>(y, left, tiles.other + (w + key) * pitch(D), pitch(D));
        }
    }
    if (has_state) {
        wait_for_copies_of_block();
        const float* const z = memory.sums + state_index * P;
#pragma unroll
        for (int step = 0; step < P / 16; ++step) {
            Pair phi[4];
            load_rows(phi, features + step * 16, P, valid);
            multiply_step<D>(y, phi, tiles.own + step * 16 * pitch(D), pitch(D));
            add_state_sum(phi, z + step * 16, far_total);
        }
    }
    const float total[2] = {near_total[0] + row_sum(far_total[0]), near_total[1] + row_sum(far_total[1])};
    store_outputs<D>(arguments, local, first + block16, lambda, total, y);
}

/// Blocks: chunks x count of 2 w threads; shared memory (2 w + max(2 w, d')) (d + 8) bf16, 68 KiB at w = 64, d = d' =
/// 128, and w (d' + 8) more unless for the terrace. Moves, a row: q, phi_q, y, for the loss teacher and dy, k and v
/// twice, and 2 d' d / w bytes of state; (4 to 8) w d + 2 d' d FLOP.
void launch_student_attention(const StudentArguments& arguments, cudaStream_t stream) {
    const Heads& heads = arguments.heads;
    const StudentForm& form = arguments.form;
    const dim3 blocks(static_cast<unsigned>(chunk_count(heads.shape.length, form.window)),
                      static_cast<unsigned>(heads.count));
    for_sizes(heads.shape.head_dim, features(form.map, form.feature_dim), [&]<int D, int P>() {
        launch("student_attention", student_attention_kernel<D, P>, blocks, 2 * form.window,
               StudentTiles<D, P>::bytes(form), stream, arguments);
    });
}

} // namespace

bool supports(const AttentionShape& shape, const StudentForm& form) {
    const auto one_of = [](int value, std::initializer_list<int> values) {
        for (const int each : values)
            if (value == each) return true;
        return false;
    };
    return supports(shape) && supports(form.map) && form.window >= 16 && form.window <= largest_window &&
           form.window % 16 == 0 && one_of(form.feature_dim, {16, 32, 64, 128}) &&
           one_of(features(form.map, form.feature_dim), {32, 64, 128, 256});
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
            feature_map_forward(heads, q_map, Rows::queries, memory.q, memory.phi_q, stream);
            feature_map_forward(heads, k_map, Rows::keys, memory.keys.k, memory.phi_k, stream);
            scan_states(heads, form, Direction::forward, memory.phi_k, Rows::keys, memory.keys.v, nullptr,
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
