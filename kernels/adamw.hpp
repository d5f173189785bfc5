#pragma once
/// AdamW with decoupled weight decay and bias correction (arXiv 1711.05101, algorithm 2), and the norm that gradients
/// are clipped by.
#include "kernels/views.hpp"

namespace lolcats {

struct AdamWSettings {
    double beta1;
    double beta2;
    double epsilon;
    double weight_decay;
};

/// Euclidean norm of [n] numbers, summed in pieces of a fixed length.
double norm(const Vector<double>& gradients);

/// One update of `values` from `gradients` times `gradient_scale` (the clipping factor). `step` counts from 1. All
/// arrays are [n]; gradients stay as they are.
void adamw(const AdamWSettings& settings, double learning_rate, double gradient_scale, long step,
           const Vector<double>& gradients, const Vector<float>& first_moments, const Vector<float>& second_moments,
           const Vector<float>& values);

} // namespace lolcats
