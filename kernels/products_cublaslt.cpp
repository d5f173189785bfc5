#include "kernels/cuda_check.hpp"
#include "kernels/products.hpp"
#include "kernels/views.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <compare>
#include <limits>
#include <map>
#include <utility>

namespace lolcats {

namespace {

constexpr int most_candidates = 5;
constexpr int timed_runs = 3;

void check_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS)
        fail("{}:{}: {} failed: {}", file_name(file), line, call, cublasLtGetStatusString(status));
}
#define LOLCATS_CHECK_CUBLAS(call) check_cublas(call, #call, __FILE__, __LINE__)

using Library = HandleOwner<cublasLtHandle_t, cublasLtDestroy>;
using Description = HandleOwner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = HandleOwner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = HandleOwner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;
using DeviceMemory = HandleOwner<void*, cudaFree>;

CudaEvent make_timed_event() {
    cudaEvent_t event = nullptr;
    LOLCATS_CHECK_CUDA(cudaEventCreate(&event));
    return CudaEvent(event);
}

/// The largest power of two up to 256 that a pointer is a multiple of.
std::uint32_t alignment(const void* pointer) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer) | 256U;
    return static_cast<std::uint32_t>(address & (~address + 1));
}

/// cuBLASLt takes an address even where nothing is added.
const float* read_or(const float* added, const float* c) {
    return added == nullptr ? c : added;
}

std::uint32_t alignment_of_sum(const float* added, const float* c) {
    return std::min(alignment(read_or(added, c)), alignment(c));
}

/// What a product's plan depends on, in the column-major terms of cuBLAS: it sees the stored rows as columns, and so
/// computes the transpose c^T[n, m] = op(b)^T op(a)^T.
struct Key {
    cudaDataType_t type; ///< of a and b
    int m, n, k;
    int a_row, b_row, c_row;
    bool transpose_a, transpose_b;
    bool adds; ///< c is read
    bool has_bias;
    std::array<std::uint32_t, 3> alignments; ///< of a, b, and c and what is added

    auto operator<=>(const Key&) const = default;
};

struct Arguments {
    const void* a;
    const void* b;
    const float* bias;
    const float* added; ///< what beta multiplies; may be c
    float* c;
    float alpha;
    float beta;
    const float* a_scales = nullptr; ///< of 8-bit factors, one a row
    const float* b_scales = nullptr;
};

const char* name_of(cudaDataType_t type) {
    return type == CUDA_R_8F_E4M3 ? "8-bit" : type == CUDA_R_16BF ? "bf16" : "float";
}

Layout make_layout(cudaDataType_t type, int rows, int columns, int row) {
    cublasLtMatrixLayout_t layout = nullptr;
    LOLCATS_CHECK_CUBLAS(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(columns),
                                                    static_cast<std::uint64_t>(rows), row));
    return Layout(layout);
}

/// A product's description and its algorithm.
struct Plan {
    Description description;
    Layout a, b, c;
    std::array<cublasLtMatmulAlgo_t, most_candidates> algorithms{}; ///< that cuBLASLt proposes
    int count = 0;                                                  ///< of them
    int used = 0;

    explicit Plan(const Key& key)
        : a(make_layout(key.type, key.transpose_a ? key.k : key.m, key.transpose_a ? key.m : key.k, key.a_row)),
          b(make_layout(key.type, key.transpose_b ? key.n : key.k, key.transpose_b ? key.k : key.n, key.b_row)),
          c(make_layout(CUDA_R_32F, key.m, key.n, key.c_row)) {
        cublasLtMatmulDesc_t created = nullptr;
        // CUBLAS_COMPUTE_32F leaves TF32 off: float factors enter with all their digits.
        LOLCATS_CHECK_CUBLAS(cublasLtMatmulDescCreate(&created, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        description.reset(created);
        set(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        if (key.has_bias) {
            set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
            set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
        }
        if (key.type == CUDA_R_8F_E4M3) expect_row_scales();
    }

    void expect_row_scales() const {
#if CUBLAS_VER_MAJOR > 12 || (CUBLAS_VER_MAJOR == 12 && CUBLAS_VER_MINOR >= 9)
        set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
        set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
#else
        fail("cuBLAS before 12.9, which this was built with, has no 8-bit products with a scale a row");
#endif
    }

    void point_to(const Key& key, const Arguments& arguments) const {
        if (key.has_bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, arguments.bias);
        if (key.type != CUDA_R_8F_E4M3) return;
        set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, arguments.b_scales);
        set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, arguments.a_scales);
    }

    template <class T>
    void set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
        LOLCATS_CHECK_CUBLAS(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof value));
    }
};

} // namespace

struct Products::State {
    explicit State(AlgorithmChoice choice) : choice(choice) {
        cublasLtHandle_t created = nullptr;
        LOLCATS_CHECK_CUBLAS(cublasLtCreate(&created));
        library.reset(created);
    }

    void multiply(const Key& key, const Arguments& arguments) {
        auto at = plans.find(key);
        if (at == plans.end()) at = plans.emplace(key, make_plan(key, arguments)).first;
        Plan& plan = at->second;
        plan.point_to(key, arguments);
        cublasStatus_t status = run(plan, plan.used, arguments, arguments.c);
        // What is proposed is all but sure to run. Which one does is the same every time.
        while ((status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) &&
               plan.used + 1 < plan.count)
            status = run(plan, ++plan.used, arguments, arguments.c);
        LOLCATS_CHECK_CUBLAS(status);
    }

private:
    /// `out` is c, or other memory of its size.
    cublasStatus_t run(const Plan& plan, int algorithm, const Arguments& x, float* out) {
        return cublasLtMatmul(library.get(), plan.description.get(), &x.alpha, x.b, plan.b.get(), x.a, plan.a.get(),
                              &x.beta, x.added, plan.c.get(), out, plan.c.get(), &plan.algorithms[algorithm],
                              aligned_workspace(), workspace_bytes(), Execution().cuda_stream());
    }

    Plan make_plan(const Key& key, const Arguments& arguments) {
        Plan plan(key);
        plan.point_to(key, arguments);
        std::array<cublasLtMatmulHeuristicResult_t, most_candidates> candidates{};
        const int count = ask_heuristic(key, plan, candidates);
        for (int i = 0; i < count; ++i)
            if (candidates[i].state == CUBLAS_STATUS_SUCCESS) plan.algorithms[plan.count++] = candidates[i].algo;
        if (plan.count == 0)
            fail("cuBLASLt has no algorithm for a {} product of {} x {} x {} on this GPU", name_of(key.type), key.m,
                 key.n, key.k);
        if (choice == AlgorithmChoice::fastest) plan.used = fastest(key, plan, arguments);
        return plan;
    }

    int ask_heuristic(const Key& key, const Plan& plan,
                      std::array<cublasLtMatmulHeuristicResult_t, most_candidates>& candidates) {
        cublasLtMatmulPreference_t created = nullptr;
        LOLCATS_CHECK_CUBLAS(cublasLtMatmulPreferenceCreate(&created));
        const Preference preference(created);
        const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
            LOLCATS_CHECK_CUBLAS(cublasLtMatmulPreferenceSetAttribute(created, attribute, &value, sizeof value));
        };
        set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes());
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignments[1]);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignments[0]);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignments[2]);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignments[2]);
        int count = 0;
        const auto status = cublasLtMatmulAlgoGetHeuristic(library.get(), plan.description.get(), plan.b.get(),
                                                           plan.a.get(), plan.c.get(), plan.c.get(), created,
                                                           most_candidates, candidates.data(), &count);
        if (status == CUBLAS_STATUS_NOT_SUPPORTED) return 0;
        LOLCATS_CHECK_CUBLAS(status);
        return count;
    }

    /// Index of the algorithm that takes least time. They write to memory of their own, as c may be added to.
    int fastest(const Key& key, const Plan& plan, const Arguments& arguments) {
        void* allocated = nullptr;
        const std::size_t elements = static_cast<std::size_t>(key.m - 1) * key.c_row + key.n;
        const cudaError_t status = cudaMalloc(&allocated, elements * sizeof(float));
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError(); // where memory is short the heuristic's first choice will do
            return 0;
        }
        LOLCATS_CHECK_CUDA(status);
        const DeviceMemory out(allocated);
        int best = 0;
        float least = std::numeric_limits<float>::infinity();
        for (int i = 0; i < plan.count; ++i) {
            const float time = measure(plan, i, arguments, static_cast<float*>(allocated));
            if (time < least) best = i;
            least = std::min(least, time);
        }
        return best;
    }

    /// Milliseconds of `timed_runs` runs after a first one; infinite if the algorithm does not run.
    float measure(const Plan& plan, int algorithm, const Arguments& arguments, float* out) {
        if (run(plan, algorithm, arguments, out) != CUBLAS_STATUS_SUCCESS)
            return std::numeric_limits<float>::infinity();
        const CudaEvent start = make_timed_event();
        const CudaEvent stop = make_timed_event();
        LOLCATS_CHECK_CUDA(cudaEventRecord(start.get(), Execution().cuda_stream()));
        for (int i = 0; i < timed_runs; ++i) LOLCATS_CHECK_CUBLAS(run(plan, algorithm, arguments, out));
        LOLCATS_CHECK_CUDA(cudaEventRecord(stop.get(), Execution().cuda_stream()));
        LOLCATS_CHECK_CUDA(cudaEventSynchronize(stop.get()));
        float time = 0;
        LOLCATS_CHECK_CUDA(cudaEventElapsedTime(&time, start.get(), stop.get()));
        return time;
    }

    /// cuBLASLt asks for multiples of 256, and Kokkos puts a header of 128 bytes before an array.
    void* aligned_workspace() {
        constexpr std::size_t multiple = 256;
        char* const memory = reserve(workspace, workspace_bytes() + multiple, "cublas_workspace");
        const auto address = reinterpret_cast<std::uintptr_t>(memory);
        return memory + (multiple - address % multiple) % multiple;
    }

    AlgorithmChoice choice;
    Library library;
    Vector<char> workspace; ///< made for the first product
    std::map<Key, Plan> plans;
};

Products::Products(AlgorithmChoice choice) : state_(std::make_unique<State>(choice)) {}
Products::~Products() = default;

bool Products::has_bf16() {
    return true;
}

void Products::multiply(const ProductShape& s, float alpha, const Factor<float>& a, const Factor<float>& b, float beta,
                        const float* bias, float* c, int c_row) {
    const Key key{CUDA_R_32F,
                  s.m,
                  s.n,
                  s.k,
                  a.row,
                  b.row,
                  c_row,
                  a.transpose,
                  b.transpose,
                  beta != 0,
                  bias != nullptr,
                  {alignment(a.data), alignment(b.data), alignment(c)}};
    state_->multiply(key, {a.data, b.data, bias, c, c, alpha, beta});
}

void Products::multiply(const ProductShape& s, const Factor<BFloat16>& a, const Factor<BFloat16>& b, const float* added,
                        const float* bias, float* c) {
    const Key key{CUDA_R_16BF,
                  s.m,
                  s.n,
                  s.k,
                  a.row,
                  b.row,
                  s.n,
                  a.transpose,
                  b.transpose,
                  added != nullptr,
                  bias != nullptr,
                  {alignment(a.data), alignment(b.data), alignment_of_sum(added, c)}};
    state_->multiply(key, {a.data, b.data, bias, read_or(added, c), c, 1.0F, added == nullptr ? 0.0F : 1.0F});
}

std::size_t Products::workspace_bytes() {
    return std::size_t{32} << 20; // what NVIDIA recommends for Hopper
}

bool Products::has_float8(const ProductShape& s) {
    return s.m % 16 == 0 && s.n % 16 == 0 && s.k % 16 == 0;
}

bool Products::widens_float8() {
    return false;
}

void Products::multiply(const ProductShape& s, const ScaledFactor& a, const ScaledFactor& b, const float* added,
                        float* c) {
    const Key key{.type = CUDA_R_8F_E4M3,
                  .m = s.m,
                  .n = s.n,
                  .k = s.k,
                  .a_row = s.k,
                  .b_row = s.k,
                  .c_row = s.n,
                  .transpose_a = false,
                  .transpose_b = true,
                  .adds = added != nullptr,
                  .has_bias = false,
                  .alignments = {alignment(a.data), alignment(b.data), alignment_of_sum(added, c)}};
    state_->multiply(
        key, {a.data, b.data, nullptr, read_or(added, c), c, 1.0F, added == nullptr ? 0.0F : 1.0F, a.scales, b.scales});
}

} // namespace lolcats
