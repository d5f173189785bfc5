#pragma once
/// No profiler listens to kernels executed on the host.
inline int nvtxRangePushA(const char*) {
    return 0;
}
inline int nvtxRangePop() {
    return 0;
}
