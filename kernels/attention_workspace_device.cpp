#include "kernels/attention_workspace.hpp"

#include "kernels/cuda/attention.hpp"

#include <algorithm>

namespace lolcats {

std::size_t teacher_workspace(const AttentionShape& shape) {
    return cuda::supports(shape) ? cuda::softmax_attention_workspace(shape) : 0;
}

std::size_t student_workspace(const AttentionShape& shape, const StudentForm& form, bool entropy) {
    if (!cuda::supports(shape, form)) return 0;
    return std::max({cuda::student_attention_workspace(shape, form),
                     cuda::student_attention_backward_workspace(shape, form),
                     entropy ? cuda::attention_cross_entropy_workspace(shape, form) : 0});
}

} // namespace lolcats
