#include "kernels/attention_workspace.hpp"

namespace lolcats {

std::size_t teacher_workspace(const AttentionShape& /*shape*/) {
    return 0;
}

std::size_t student_workspace(const AttentionShape& /*shape*/, const StudentForm& /*form*/, bool /*entropy*/) {
    return 0;
}

} // namespace lolcats
