# What the build for NVIDIA GPUs adds: C++ goes through Kokkos' nvcc_wrapper, hand-written kernels (*.cu) through nvcc.
if(NOT Kokkos_ENABLE_CUDA)
  message(FATAL_ERROR "The Kokkos in ${Kokkos_DIR} has no CUDA backend: build one (tools/setup.sh --cuda does) and point "
    "Kokkos_ROOT at it.")
endif()
if(NOT Kokkos_CUDA_ARCHITECTURES IN_LIST LOLCATS_CUDA_ARCHITECTURES)
  message(FATAL_ERROR "The Kokkos in ${Kokkos_DIR} is for sm_${Kokkos_CUDA_ARCHITECTURES}, which is not among "
    "LOLCATS_CUDA_ARCHITECTURES (${LOLCATS_CUDA_ARCHITECTURES}): add it, or point Kokkos_ROOT at another Kokkos.")
endif()

set(CMAKE_CUDA_ARCHITECTURES ${LOLCATS_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra")
enable_language(CUDA)
# CMake below 3.26 does not know how nvcc spells C++20.
foreach(kind STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION -std=c++20)
  endif()
endforeach()
find_package(CUDAToolkit REQUIRED)
if(CMAKE_BUILD_TYPE STREQUAL "Check")
  # Portable kernels in PTX alone: assembling it would check nothing of theirs.
  foreach(stage COMPILE LINK)
    get_target_property(OPTIONS Kokkos::kokkoscore INTERFACE_${stage}_OPTIONS)
    if(OPTIONS)
      string(REPLACE "-arch=sm_" "-arch=compute_" OPTIONS "${OPTIONS}")
      set_target_properties(Kokkos::kokkoscore PROPERTIES INTERFACE_${stage}_OPTIONS "${OPTIONS}")
    endif()
  endforeach()
  string(REPLACE "-arch=sm_" "-arch=compute_" CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS}")
  if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13)
    set(QUICKLY --Ofast-compile=max)
    set(CMAKE_CUDA_FLAGS_CHECK "${CMAKE_CUDA_FLAGS_CHECK} ${QUICKLY}")
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env NVCC_APPEND_FLAGS=${QUICKLY}) # nvcc_wrapper refuses it
  endif()
endif()
if(LOLCATS_KERNELS_ONLY AND TARGET CUDA::cudart_static) # Kokkos asks for the shared one
  set_target_properties(CUDA::cudart PROPERTIES IMPORTED_LOCATION ${CUDA_cudart_static_LIBRARY}
    INTERFACE_LINK_LIBRARIES "Threads::Threads;dl;rt")
endif()

# Portable kernels are compiled for the one architecture of Kokkos, and run on later ones through its PTX.
set(CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS} --expt-relaxed-constexpr")
if(Kokkos_VERSION VERSION_LESS 4.7.01 AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13)
  set(CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS} -include ${CMAKE_SOURCE_DIR}/tools/kokkos_cuda13.hpp")
endif()
# The driver's library is left out unless something needs it (kernels/accelerator_device.cpp): programs start on any machine.
set(CMAKE_EXE_LINKER_FLAGS "${CMAKE_EXE_LINKER_FLAGS} -Wl,--as-needed")
# nvcc has no use for what the host compiler precompiled.
set(CMAKE_DISABLE_PRECOMPILE_HEADERS ON)
