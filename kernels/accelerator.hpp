#pragma once
/// The processors that the default execution space can run on.

namespace lolcats {

/// To be called before anything starts the accelerator. Settings in the environment stay as they are.
void prepare_accelerator();

/// GPUs that this process can use; 1 in a build for the CPU.
int accelerator_count();

/// Why there are none, in a few words, such as "no CUDA-capable device is detected"; empty if there are some.
const char* missing_accelerator();

} // namespace lolcats
