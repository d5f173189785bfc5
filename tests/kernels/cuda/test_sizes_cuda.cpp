/// From a shape's sizes to the kernels compiled for them.
#include "kernels/cuda/sizes.cuh"
#include "tests/kernels/cuda/student_run.hpp"

namespace lolcats::test::test_sizes_cuda {
namespace {

TEST(CudaSizes, EachSizeHasItsOwn) {
    std::vector<std::pair<int, int>> called;
    for (const int d : {32, 64, 128})
        for (const int f : {16, 32, 64, 128})
            cuda::for_map_sizes(d, f, [&]<int D, int F>() {
                EXPECT_EQ(D, d);
                EXPECT_EQ(F, f);
                called.emplace_back(D, F);
            });
    EXPECT_EQ(called.size(), 12U);
    const StudentCase c = student_case(NearKeys::terrace, 64, 64, 64, 128);
    cuda::for_sizes(c.shape, c.form, [&]<int D, int P>() {
        EXPECT_EQ(D, 64);
        EXPECT_EQ(P, 256);
        called.emplace_back(D, P);
    });
    EXPECT_EQ(called.size(), 13U);
}

TEST(CudaSizes, OthersThrow) {
    EXPECT_THROW(cuda::for_head_dim(96, [&]<int D>() { ADD_FAILURE() << D; }), std::invalid_argument);
    EXPECT_THROW(cuda::for_map_sizes(64, 48, [&]<int D, int F>() { ADD_FAILURE() << D << F; }), std::invalid_argument);
    const StudentCase c = student_case(NearKeys::terrace, 64, 64, 64, 192);
    EXPECT_THROW(cuda::for_sizes(c.shape, c.form, [&]<int D, int P>() { ADD_FAILURE() << D << P; }),
                 std::invalid_argument);
}

} // namespace
} // namespace lolcats::test::test_sizes_cuda
