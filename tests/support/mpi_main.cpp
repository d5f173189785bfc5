/// Main of the test programs that use MPI: fails on every rank if a test failed on one.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>

int main(int argc, char** argv) {
    if (MPI_Init(&argc, &argv) != MPI_SUCCESS) {
        std::fputs("MPI_Init failed\n", stderr);
        return 1;
    }
    testing::InitGoogleTest(&argc, argv);
    int failed = RUN_ALL_TESTS();
    int worst = 1;
    if (MPI_Allreduce(&failed, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD) != MPI_SUCCESS) worst = 1;
    if (MPI_Finalize() != MPI_SUCCESS) worst = 1;
    return worst;
}
