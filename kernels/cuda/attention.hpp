#pragma once
/// Tensor-core twins of the attention kernels, in plain CUDA: device pointers, shapes and a stream.
///
/// They compute what softmax_attention.hpp, student_attention.hpp and transfer_loss.hpp state (paper equations 5 to 8),
/// with these roundings: q, k, v, the features phi, the far state and the attention weights enter products as bf16, and
/// so does dy / normalizer; products are summed in float. The product x W of a feature map takes W as the sum of two
/// bf16 numbers, so z has the accuracy of float for the rounded x. Softmax, activations, sums of weights and all
/// gradients of parameters are in float. Results do not depend on how blocks are scheduled.
///
/// All functions enqueue on `stream` and return; a launch that CUDA refuses throws std::runtime_error with the kernel's
/// name. Pointers are to device memory, aligned to 16 bytes, arrays dense and row-major. Shapes for which `supports` is
/// false throw std::invalid_argument: use the portable kernel.
#include "kernels/attention_form.hpp"

#include <cuda_runtime_api.h>

#include <cstddef>

namespace lolcats::cuda {

/// Scratch memory of the device, at least as large as the function's `..._workspace` says.
struct Workspace {
    void* data;
    std::size_t bytes;
};

/// d in {32, 64, 128}; B H_kv up to 65535; any T and H.
bool supports(const AttentionShape& shape);

/// The maps whose activations feature_map.cu computes.
bool supports(FeatureMapKind map);

/// Besides: a map with a twin; w a multiple of 16 up to 128; d' in {32, 64, 128, 256}, for which f must be in {16, 32,
/// 64, 128}; a GPU that grants a block 204 KiB of shared memory, as Hopper does.
bool supports(const AttentionShape& shape, const StudentForm& form);

std::size_t softmax_attention_workspace(const AttentionShape& shape);
std::size_t student_attention_workspace(const AttentionShape& shape, const StudentForm& form);
std::size_t student_attention_backward_workspace(const AttentionShape& shape, const StudentForm& form);
std::size_t attention_cross_entropy_workspace(const AttentionShape& shape, const StudentForm& form);

/// After RoPE: q [B T, H d], k and v [B T, H_kv d].
struct AttentionInputs {
    const float* q;
    const float* k;
    const float* v;
};

/// Writes y [B T, H d] and log_sum [B H, T].
void softmax_attention(const AttentionShape& shape, const AttentionInputs& inputs, float* y, float* log_sum,
                       const Workspace& workspace, cudaStream_t stream);

/// q_map and k_map [H, d, f]; q_bias, k_bias and window_factors [H]. Biases are read only if the map has one, window
/// factors only if there are near keys.
struct StudentParameterPointers {
    const float* q_map;
    const float* k_map;
    const float* q_bias;
    const float* k_bias;
    const float* window_factors;
};

/// The transfer loss, computed while the outputs are in registers: *loss = sum (y - teacher)^2 in double, and
/// dy = 2 scale (y - teacher), [B T, H d].
struct SquaredError {
    const float* teacher;
    float scale;
    float* dy;
    double* loss;
};

/// Writes y [B T, H d] and normalizer [B H, T]; with `error` not null the squared error too.
void student_attention(const AttentionShape& shape, const StudentForm& form, const StudentParameterPointers& parameters,
                       const AttentionInputs& inputs, float* y, float* normalizer, const SquaredError* error,
                       const Workspace& workspace, cudaStream_t stream);

/// What the forward pass left and the gradient of the loss with respect to y.
struct StudentOutputs {
    const float* y;          ///< [B T, H d]
    const float* normalizer; ///< [B H, T]
    const float* dy;         ///< [B T, H d]
};

/// Gradients, added to: maps [B H, d f], the rest [B H]; biases and window factors as in StudentParameterPointers. With
/// null maps the parameters are frozen.
struct StudentGradientPointers {
    float* q_map;
    float* k_map;
    float* q_bias;
    float* k_bias;
    float* window_factors;
};

/// Gradients of q, k and v, [B T, H d] each, overwritten; those of k and v apart by query head.
struct InputGradientPointers {
    float* q;
    float* k;
    float* v;
};

/// Adds the parameters' gradients to `gradients` and, with `input_gradients` not null, writes those of q, k and v.
void student_attention_backward(const AttentionShape& shape, const StudentForm& form,
                                const StudentParameterPointers& parameters, const AttentionInputs& inputs,
                                const StudentOutputs& outputs, const StudentGradientPointers& gradients,
                                const InputGradientPointers* input_gradients, const Workspace& workspace,
                                cudaStream_t stream);

/// Sums of each query's weights, [B H, T]. Without `normalizer` only far keys count, and the student's weights of those
/// are normalised by their own sum.
struct WeightSums {
    const float* log_sum;    ///< of softmax_attention
    const float* normalizer; ///< of student_attention
};

/// *loss = attention_cross_entropy of transfer_loss.hpp, without a normalizer that of far keys. With `gradients` not
/// null adds `scale` times its gradient to them.
void attention_cross_entropy(const AttentionShape& shape, const StudentForm& form,
                             const StudentParameterPointers& parameters, const float* q, const float* k,
                             const WeightSums& sums, float scale, const StudentGradientPointers* gradients,
                             double* loss, const Workspace& workspace, cudaStream_t stream);

} // namespace lolcats::cuda
