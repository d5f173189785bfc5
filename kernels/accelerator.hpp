#pragma once
/// The processors that the default execution space can run on.
#include <string>

namespace lolcats {

/// To be called before anything starts the accelerator. Settings in the environment stay as they are.
void prepare_accelerator();

/// GPUs that this process can use; 1 in a build for the CPU.
int accelerator_count();

/// Why there are none, in a few words, such as "no CUDA-capable device is detected"; empty if there are some.
const char* missing_accelerator();

/// What it is called; the processor's model in a build for the CPU.
std::string accelerator_name();

/// Bytes that tell the current GPU from all others, whatever number each process knows it by; one value for all
/// processes in a build for the CPU.
std::string accelerator_identity();

/// Bytes of the current GPU's memory that are in use, by whomever; 0 in a build for the CPU.
double accelerator_memory_in_use();

/// Bytes of the current GPU's memory that are free; 0 in a build for the CPU.
double accelerator_memory_free();

} // namespace lolcats
