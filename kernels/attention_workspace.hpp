#pragma once
/// What attention on a GPU's tensor cores works in beside its operands: one piece of memory, kept for all calls.
#include "kernels/attention_form.hpp"

#include <cstddef>

namespace lolcats {

/// Windows that tensor cores take are multiples of it.
inline constexpr int smallest_twin_window = 16;

/// Bytes for softmax attention over float arrays of this shape. 0 where the portable kernel is used, which needs none:
/// on a host, and for shapes that tensor cores do not take.
std::size_t teacher_workspace(const AttentionShape& shape);

/// The same for the student's attention, forward and backward, and for the cross-entropy of its weights if `entropy`.
std::size_t student_workspace(const AttentionShape& shape, const StudentForm& form, bool entropy);

} // namespace lolcats
