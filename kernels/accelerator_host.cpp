#include "kernels/accelerator.hpp"

namespace lolcats {

void prepare_accelerator() {}

int accelerator_count() {
    return 1;
}

const char* missing_accelerator() {
    return "";
}

} // namespace lolcats
