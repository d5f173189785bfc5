# The tests of kernels/*.cu. In a build for GPUs they run there, or are skipped with the reason.
file(GLOB CUDA_KERNEL_TESTS CONFIGURE_DEPENDS kernels/cuda/*.cpp)
if(LOLCATS_CUDA)
  lolcats_test(test_cuda_kernels SOURCES ${CUDA_KERNEL_TESTS} support/kokkos_main.cpp LIBRARIES lolcats_kernels)
  return()
endif()

# In a build for the CPU the same sources are compiled for it, with tests/support/cuda_on_host standing in for CUDA: this
# shows the kernels' logic at work, not a GPU's.
file(GLOB CUDA_KERNEL_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*.cu ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
set_source_files_properties(${CUDA_KERNEL_SOURCES} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
lolcats_test(test_cuda_kernels_on_host
  SOURCES ${CUDA_KERNEL_TESTS} ${CUDA_KERNEL_SOURCES} ${CMAKE_SOURCE_DIR}/tests/support/cuda_on_host.cpp
  LIBRARIES lolcats_settings GTest::gtest_main)
target_include_directories(test_cuda_kernels_on_host BEFORE PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/cuda_on_host)
target_compile_definitions(test_cuda_kernels_on_host PRIVATE LOLCATS_CUDA_ON_HOST)
target_compile_options(test_cuda_kernels_on_host PRIVATE -Wno-unknown-pragmas)
