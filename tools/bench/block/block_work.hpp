#pragma once
/// FLOP and bytes that one optimiser step asks for, by the names that kernels and regions have in KernelTimes.
#include "kernels/attention_form.hpp"
#include "kernels/gemm.hpp"
#include "tools/bench/block/settings.hpp"

#include <map>
#include <string>

namespace lolcats::bench {

struct Work {
    double flops = 0;
    double bytes = 0; ///< read and written at least: every input and output once

    Work& operator+=(const Work& other) {
        flops += other.flops;
        bytes += other.bytes;
        return *this;
    }
    Work operator*(double times) const { return {flops * times, bytes * times}; }
};

using Works = std::map<std::string, Work>;

Works teacher_work(const Settings& settings, const StudentForm& form, Arithmetic arithmetic);
/// `parameters`: those that are trained, of all layers.
Works transfer_work(const Settings& settings, const StudentForm& form, Arithmetic arithmetic, double parameters);
Works lora_work(const Settings& settings, const StudentForm& form, Arithmetic arithmetic, double parameters);

/// The class that a kernel or region of this name counts to.
std::string class_of(const std::string& name);

} // namespace lolcats::bench
