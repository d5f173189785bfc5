# Finds NCCL (NCCL_ROOT, or beside the CUDA toolkit) and makes it the target NCCL::nccl. A build without it sends arrays
# between ranks through the hosts' memory, by MPI.
set(NCCL_OLDEST 2.18) # what nccl_arrays.cpp asks for: calls that do not block, a bound on thread blocks
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
if(NCCL_INCLUDE_DIR)
  file(STRINGS ${NCCL_INCLUDE_DIR}/nccl.h NCCL_NUMBERS REGEX "^#define NCCL_(MAJOR|MINOR|PATCH) ")
  list(TRANSFORM NCCL_NUMBERS REPLACE "[^0-9]*([0-9]+).*" "\\1")
  list(JOIN NCCL_NUMBERS "." NCCL_VERSION)
endif()
if(NOT NCCL_INCLUDE_DIR OR NOT NCCL_LIBRARY)
  message(STATUS "NCCL: not found, arrays travel between ranks through the hosts' memory; install it or set NCCL_ROOT")
elseif(NCCL_VERSION VERSION_LESS NCCL_OLDEST)
  message(STATUS "NCCL: ${NCCL_VERSION} in ${NCCL_INCLUDE_DIR} is older than ${NCCL_OLDEST} and not used; set NCCL_ROOT to a "
    "newer one")
else()
  message(STATUS "NCCL: ${NCCL_VERSION} (${NCCL_LIBRARY})")
  add_library(NCCL::nccl UNKNOWN IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
  target_link_libraries(NCCL::nccl INTERFACE CUDA::cudart)
endif()
