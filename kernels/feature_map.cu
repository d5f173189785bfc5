#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/student.cuh"
#include "kernels/floors.hpp"

namespace lolcats::cuda {

namespace {

constexpr int map_warps = 8;
constexpr int map_threads = map_warps * warp_size;
constexpr int tile_rows = map_warps * 16;
constexpr int rows_per_block = 4 * tile_rows; ///< so that reading the weights is small beside reading the rows

int segment_count(int length) {
    return (length + rows_per_block - 1) / rows_per_block;
}

/// W [D, F] as the sum of two bf16 matrices.
template <int D, int F>
__device__ void load_weights(const float* weights, BFloat* leading, BFloat* rest) {
    for (int i = static_cast<int>(threadIdx.x); i < D * F / 2; i += map_threads) {
        const float2 w = reinterpret_cast<const float2*>(weights)[i];
        const Pair first = pack(w.x, w.y);
        const int at = 2 * i / F * pitch(F) + 2 * i % F;
        *reinterpret_cast<Pair*>(leading + at) = first;
        *reinterpret_cast<Pair*>(rest + at) = pack(w.x - low(first), w.y - high(first));
    }
}

/// One half of the features of one row, that of z or, with sign -1, of -z. It has what they share, and computes each
/// when it is needed, which is cheaper than keeping them.
struct RowMap {
    FeatureMapKind kind;
    float sign;
    float top = 0;   ///< largest exponent, where exponents are shifted by it
    float scale = 1; ///< of softmax

    template <int Tiles>
    __device__ RowMap(FeatureMapKind kind, float sign, const float (&z)[Tiles][4], int r) : kind(kind), sign(sign) {
        if (kind == FeatureMapKind::t2r || kind == FeatureMapKind::pos_elu) return;
        top = sign * z[0][2 * r];
#pragma unroll
        for (int j = 0; j < Tiles; ++j) top = fmaxf(top, fmaxf(sign * z[j][2 * r], sign * z[j][2 * r + 1]));
        top = row_maximum(top);
        if (!is_softmax()) return;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < Tiles; ++j) sum += exponential(z[j][2 * r]) + exponential(z[j][2 * r + 1]);
        scale = 1 / row_sum(sum);
    }

    __device__ bool is_softmax() const {
        return kind == FeatureMapKind::hedgehog || kind == FeatureMapKind::hedgehog_half;
    }
    __device__ bool is_exponential() const {
        return kind == FeatureMapKind::exp_dim || kind == FeatureMapKind::exp_dim_half;
    }
    __device__ float exponential(float x) const {
        return __expf(sign * x - top);
    }

    __device__ float operator()(float x) const {
        float phi;
        if (kind == FeatureMapKind::t2r)
            phi = x < 0 ? 0 : x;
        else if (kind == FeatureMapKind::pos_elu)
            phi = x > 0 ? 1 + x : __expf(x);
        else
            phi = exponential(x) * scale;
        // Written so that a NaN is kept: it must reach the loss, where it is reported.
        return phi < feature_floor<float> ? feature_floor<float> : phi;
    }

    /// dphi, or zero where the floor bites.
    __device__ static float through_floor(float phi, float dphi) {
        return phi > feature_floor<float> ? dphi : 0;
    }
    __device__ bool is_extreme(float x) const {
        return sign * x == top;
    }

    /// dz of one feature, given the row's sum of phi dphi and how many of its z are at the extreme.
    __device__ float gradient(float x, float phi, float dphi, float sum, float ties) const {
        dphi = through_floor(phi, dphi);
        if (is_softmax()) return sign * phi * (dphi - sum);
        // The extreme that the exponent was shifted by takes the whole sum.
        if (is_exponential()) return sign * (phi * dphi - (is_extreme(x) ? sum / ties : 0));
        return kind == FeatureMapKind::t2r || x > 0 ? dphi : dphi * phi;
    }
};

struct MapForwardArguments {
    Heads heads;
    MapPointers map;
    PackedRows rows;
    const BFloat* x;
    BFloat* phi;
};

/// One block: up to 512 rows of one head, a warp 16 of each 128.
template <int D, int F>
__global__ __launch_bounds__(map_threads) void feature_map_kernel(MapForwardArguments arguments) {
    const Heads& heads = arguments.heads;
    const int length = heads.shape.length;
    const int local = static_cast<int>(blockIdx.y);
    const int h = (heads.first + local) % heads.shape.heads;
    const int width = features(arguments.map.kind, F);
    BFloat* const leading = shared_memory();
    BFloat* const rest = leading + D * pitch(F);
    load_weights<D, F>(arguments.map.weights + static_cast<std::size_t>(h) * D * F, leading, rest);
    const float bias = arguments.map.bias == nullptr ? 0 : arguments.map.bias[h];
    const BFloat* const x = head_rows(heads, arguments.rows, arguments.x, local, D);
    BFloat* const out = head_rows(heads, PackedRows::queries, arguments.phi, local, width);
    __syncthreads();
    const int begin = static_cast<int>(blockIdx.x) * rows_per_block;
    for (int first = begin + warp() * 16; first < min(begin + rows_per_block, length); first += tile_rows) {
        Pair rows[D / 16][4];
        load_rows<D>(rows, x + static_cast<std::size_t>(first) * D, D, length - first);
        float z[F / 8][4];
        clear(z);
        multiply<D, F>(z, rows, leading, pitch(F));
        multiply<D, F>(z, rows, rest, pitch(F));
        for_each_element(z, [=](int, int, float& value) { value += bias; });
        for (int half = 0; half < width / F; ++half) {
            const float sign = half == 0 ? 1.0F : -1.0F;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const RowMap phi(arguments.map.kind, sign, z, r);
                const int n = first + lane_row() + 8 * r;
                if (n >= length) continue;
                BFloat* const row = out + static_cast<std::size_t>(n) * width + half * F + lane_column();
#pragma unroll
                for (int j = 0; j < F / 8; ++j)
                    *reinterpret_cast<Pair*>(row + 8 * j) = pack(phi(z[j][2 * r]), phi(z[j][2 * r + 1]));
            }
        }
    }
}

struct MapBackwardArguments {
    Heads heads;
    MapPointers map;
    PackedRows rows;
    const BFloat* x;
    const float* dphi; ///< [count, T, d']
    float* partials;   ///< [segments, count, D F + 2]: dW, sum of dz, sum of phi . dphi; null: not wanted
    float* dx;         ///< null, or [B T, H d]
    bool add_dx;
};

/// Adds to dz the gradient through one half of the features; returns the lane's part of phi . dphi. `dphi` is that half
/// of the warp's first row; rows from `valid` on count as zero. Where registers are short it is read twice.
template <int Tiles>
__device__ float add_activation_gradient(FeatureMapKind kind, float sign, const float (&z)[Tiles][4], const float* dphi,
                                         int width, int valid, float (&dz)[Tiles][4]) {
    constexpr bool keeps = Tiles <= 8;
    float product = 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const bool exists = lane_row() + 8 * r < valid;
        const float* const row =
            dphi + static_cast<std::size_t>(exists ? lane_row() + 8 * r : 0) * width + lane_column();
        const auto read = [&](int j) { return exists ? *reinterpret_cast<const float2*>(row + 8 * j) : float2{0, 0}; };
        float2 kept[keeps ? Tiles : 1]; // all on their way at once
        if constexpr (keeps) {
#pragma unroll
            for (int j = 0; j < Tiles; ++j) kept[j] = read(j);
        }
        const RowMap map(kind, sign, z, r);
        const auto gradient_pair = [&](int j) {
            if constexpr (keeps)
                return kept[j];
            else
                return read(j);
        };
        float sum = 0;
        float ties = 0;
#pragma unroll
        for (int j = 0; j < Tiles; ++j) {
            const float2 pair = gradient_pair(j);
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float x = z[j][2 * r + e];
                const float phi = map(x);
                const float gradient = e == 0 ? pair.x : pair.y;
                product += phi * gradient;
                sum += phi * RowMap::through_floor(phi, gradient);
                ties += map.is_extreme(x) ? 1.0F : 0.0F;
            }
        }
        sum = row_sum(sum);
        ties = row_sum(ties);
#pragma unroll
        for (int j = 0; j < Tiles; ++j) {
            const float2 pair = gradient_pair(j);
            const float x = z[j][2 * r];
            const float y = z[j][2 * r + 1];
            dz[j][2 * r] += map.gradient(x, map(x), pair.x, sum, ties);
            dz[j][2 * r + 1] += map.gradient(y, map(y), pair.y, sum, ties);
        }
    }
    return product;
}

/// dx = dz W^T of a warp's 16 rows from `first` on, a slice of columns at a time to save registers.
template <int D, int F>
__device__ void store_input_gradient(const MapBackwardArguments& arguments, int index, int first,
                                     const float (&dz)[F / 8][4], const BFloat* weights) {
    constexpr int slice = D < 64 ? D : 64;
    const AttentionShape& shape = arguments.heads.shape;
    Pair left[F / 16][4];
#pragma unroll
    for (int step = 0; step < F / 16; ++step) as_left(left[step], dz, step * 16);
#pragma unroll
    for (int column = 0; column < D; column += slice) {
        float dx[slice / 8][4];
        clear(dx);
        multiply_transposed<F, slice>(dx, left, weights + column * pitch(F), pitch(F));
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int n = first + lane_row() + 8 * r;
            if (n >= shape.length) continue;
            float* const row = arguments.dx + head_offset(shape, shape.heads, index) +
                               static_cast<std::size_t>(n) * shape.heads * D + column + lane_column();
#pragma unroll
            for (int j = 0; j < slice / 8; ++j) {
                float2* const at = reinterpret_cast<float2*>(row + 8 * j);
                const float2 old = arguments.add_dx ? *at : float2{0, 0};
                *at = {old.x + dx[j][2 * r], old.y + dx[j][2 * r + 1]};
            }
        }
    }
}

/// How the warps share dW: each has 16 rows of it and `pairs` times 16 columns.
template <int D, int F>
struct WeightTile {
    static constexpr int down = D / 16 < map_warps ? D / 16 : map_warps;
    static constexpr int across = map_warps / down;
    static constexpr int pairs = F / 16 < across ? 1 : F / 16 / across;

    __device__ static int row() { return warp() % down * 16; }
    __device__ static int column() { return warp() / down * pairs * 16; }
    __device__ static bool exists() { return column() < F; }
};

/// z = x W + b of the warp's 16 rows of a tile of x.
template <int D, int F>
__device__ void map_rows(float (&z)[F / 8][4], const BFloat* x, const BFloat* leading, const BFloat* rest, float bias) {
    clear(z);
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
        Pair rows[4];
        load_left(rows, x + warp() * 16 * pitch(D) + step * 16, pitch(D));
        multiply_step<F>(z, rows, leading + step * 16 * pitch(F), pitch(F));
        multiply_step<F>(z, rows, rest + step * 16 * pitch(F), pitch(F));
    }
    for_each_element(z, [=](int, int, float& value) { value += bias; });
}

/// dz of the warp's 16 rows to their place in a tile, as bf16.
template <int F>
__device__ void write_tile_rows(BFloat* tile, const float (&dz)[F / 8][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int j = 0; j < F / 8; ++j)
            *reinterpret_cast<Pair*>(tile + (warp() * 16 + lane_row() + 8 * r) * pitch(F) + 8 * j + lane_column()) =
                pack(dz[j][2 * r], dz[j][2 * r + 1]);
}

/// The warp's part of dW += x^T dz, of two tiles.
template <int D, int F>
__device__ void add_weight_gradient(float (&gradient)[2 * WeightTile<D, F>::pairs][4], const BFloat* x,
                                    const BFloat* dz) {
    using Part = WeightTile<D, F>;
    if (!Part::exists()) return;
#pragma unroll
    for (int step = 0; step < tile_rows / 16; ++step) {
        Pair left[4];
        load_left_transposed(left, x + step * 16 * pitch(D) + Part::row(), pitch(D));
        multiply_step<Part::pairs * 16>(gradient, left, dz + step * 16 * pitch(F) + Part::column(), pitch(F));
    }
}

/// Writes the block's dW [D, F], and after it the sums over its threads of bias_gradient and product.
template <int D, int F>
__device__ void store_partials(float* out, float (&weight_gradient)[2 * WeightTile<D, F>::pairs][4],
                               float bias_gradient, float product, float* shared) {
    using Part = WeightTile<D, F>;
    if (Part::exists())
        for_each_element(weight_gradient, [&](int row, int column, float& value) {
            out[(Part::row() + row) * F + Part::column() + column] = value;
        });
    bias_gradient = warp_sum(bias_gradient);
    product = warp_sum(product);
    if (lane() == 0) {
        shared[warp()] = bias_gradient;
        shared[map_warps + warp()] = product;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        float sum = 0;
        for (int i = 0; i < map_warps; ++i) sum += shared[threadIdx.x * map_warps + i];
        out[D * F + threadIdx.x] = sum;
    }
}

/// One block: up to 512 rows of one head, 128 at a time: dz of 16 rows a warp, then dW += x^T dz of all.
template <int D, int F>
__global__ __launch_bounds__(map_threads) void feature_map_backward_kernel(MapBackwardArguments arguments) {
    const Heads& heads = arguments.heads;
    const int length = heads.shape.length;
    const int local = static_cast<int>(blockIdx.y);
    const int index = heads.first + local;
    const int h = index % heads.shape.heads;
    const FeatureMapKind kind = arguments.map.kind;
    const int width = features(kind, F);
    BFloat* const leading = shared_memory();
    BFloat* const rest = leading + D * pitch(F);
    BFloat* const x_tile = rest + D * pitch(F);
    BFloat* const dz_tile = x_tile + tile_rows * pitch(D);
    load_weights<D, F>(arguments.map.weights + static_cast<std::size_t>(h) * D * F, leading, rest);
    const float bias = arguments.map.bias == nullptr ? 0 : arguments.map.bias[h];
    const BFloat* const x = head_rows(heads, arguments.rows, arguments.x, local, D);
    const float* const dphi_rows = head_rows(heads, PackedRows::queries, arguments.dphi, local, width);

    float weight_gradient[2 * WeightTile<D, F>::pairs][4];
    clear(weight_gradient);
    float bias_gradient = 0;
    float product = 0;
    const int begin = static_cast<int>(blockIdx.x) * rows_per_block;
    for (int tile = begin; tile < min(begin + rows_per_block, length); tile += tile_rows) {
        copy_tile<D>(x_tile, x + static_cast<std::size_t>(tile) * D, D, tile_rows, length - tile);
        wait_for_copies_of_block();
        const int first = tile + warp() * 16;
        float z[F / 8][4];
        map_rows<D, F>(z, x_tile, leading, rest, bias);
        float dz[F / 8][4];
        clear(dz);
        for (int half = 0; half < width / F; ++half) {
            const float sign = half == 0 ? 1.0F : -1.0F;
            const float* const dphi = dphi_rows + static_cast<std::ptrdiff_t>(first) * width + half * F;
            product += add_activation_gradient(kind, sign, z, dphi, width, length - first, dz);
        }
        for_each_element(dz, [&](int, int, float& value) { bias_gradient += value; });
        if (arguments.dx != nullptr) store_input_gradient<D, F>(arguments, index, first, dz, leading);
        if (arguments.partials != nullptr) {
            write_tile_rows<F>(dz_tile, dz);
            __syncthreads();
            add_weight_gradient<D, F>(weight_gradient, x_tile, dz_tile);
        }
        __syncthreads(); // before the next rows take these ones' place
    }
    if (arguments.partials == nullptr) return;
    store_partials<D, F>(arguments.partials +
                             (static_cast<std::size_t>(blockIdx.x) * heads.count + local) * (D * F + 2),
                         weight_gradient, bias_gradient, product, reinterpret_cast<float*>(dz_tile));
}

struct SumArguments {
    Heads heads;
    StudentForm form;
    const float* window_factors;
    const float* partials;
    int segments;
    int weights; ///< d f
    MapGradients gradients;
};

/// A thread an element: the sum over segments, in their order.
__global__ void add_partials_kernel(SumArguments arguments) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int size = arguments.weights + 2;
    if (i >= size) return;
    const int local = static_cast<int>(blockIdx.y);
    const int index = arguments.heads.first + local;
    float sum = 0;
    for (int s = 0; s < arguments.segments; ++s)
        sum += arguments.partials[(static_cast<std::size_t>(s) * arguments.heads.count + local) * size + i];
    const MapGradients& out = arguments.gradients;
    if (i < arguments.weights) {
        out.weights[static_cast<std::size_t>(index) * arguments.weights + i] += sum;
    } else if (i == arguments.weights) {
        if (out.bias != nullptr) out.bias[index] += sum;
    } else if (out.window_factors != nullptr) {
        // Scaling all weights changes nothing, so gamma dl/dgamma = -lambda dl/dlambda, and that is phi . dphi.
        const Mixing factors = mixing(arguments.heads.shape, arguments.form, arguments.window_factors, index);
        out.window_factors[index] -= (arguments.form.affine ? 1 : 1 - factors.gamma) * sum;
    }
}

dim3 map_blocks(const Heads& heads) {
    return {static_cast<unsigned>(segment_count(heads.shape.length)), static_cast<unsigned>(heads.count)};
}

} // namespace

bool supports(FeatureMapKind map) {
    switch (map) { // what RowMap knows
    case FeatureMapKind::hedgehog:
    case FeatureMapKind::hedgehog_half:
    case FeatureMapKind::exp_dim:
    case FeatureMapKind::exp_dim_half:
    case FeatureMapKind::t2r:
    case FeatureMapKind::pos_elu:
        return true;
    default:
        return false;
    }
}

/// Blocks: T / 512 x count of 256 threads; shared memory 2 d (f + 8) bf16, 36 KiB at d = 128, f = 64. Moves 2 d bytes a
/// row in and 2 d' out; 4 d f FLOP a row.
void feature_map_forward(const Heads& heads, const MapPointers& map, PackedRows rows, const BFloat* x, BFloat* phi,
                         cudaStream_t stream) {
    for_map_sizes(heads.shape.head_dim, map.feature_dim, [&]<int D, int F>() {
        launch("feature_map", feature_map_kernel<D, F>, map_blocks(heads), map_threads,
               2 * D * pitch(F) * sizeof(BFloat), stream, MapForwardArguments{heads, map, rows, x, phi});
    });
}

std::size_t feature_map_partials(const Heads& heads, int feature_dim) {
    const std::size_t size = static_cast<std::size_t>(heads.shape.head_dim) * feature_dim + 2;
    return size * heads.count * segment_count(heads.shape.length);
}

/// Blocks: T / 512 x count of 256 threads; shared memory 2 d (f + 8) + 128 (d + f + 16) bf16: 88 KiB for d = 128 with
/// f = 64. Moves 2 d + 4 d' bytes a row in, with dx 8 d more; 6 d f FLOP a row, with dx 8 d f. Then one pass over the
/// partial sums.
void feature_map_backward(const Heads& heads, const StudentForm& form, const MapPointers& map, const float* factors,
                          PackedRows rows, const BFloat* x, const float* dphi, float* partials,
                          const MapGradients& gradients, cudaStream_t stream) {
    const int segments = segment_count(heads.shape.length);
    float* const sums = gradients.weights != nullptr ? partials : nullptr;
    for_map_sizes(heads.shape.head_dim, map.feature_dim, [&]<int D, int F>() {
        const std::size_t shared = (2 * D * pitch(F) + tile_rows * (pitch(D) + pitch(F))) * sizeof(BFloat);
        launch("feature_map_backward", feature_map_backward_kernel<D, F>, map_blocks(heads), map_threads, shared,
               stream, MapBackwardArguments{heads, map, rows, x, dphi, sums, gradients.input, gradients.add_input});
    });
    if (sums == nullptr) return;
    constexpr int threads = 256;
    const int weights = heads.shape.head_dim * map.feature_dim;
    launch("add_partials", add_partials_kernel,
           dim3(static_cast<unsigned>((weights + 2 + threads - 1) / threads), static_cast<unsigned>(heads.count)),
           threads, 0, stream, SumArguments{heads, form, factors, sums, segments, weights, gradients});
}

} // namespace lolcats::cuda
