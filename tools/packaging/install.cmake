# What `cmake --install` puts where: programs, manual pages and completion; the library of kernels with its headers, for
# find_package(lolcats); job scripts and the Python tools.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(SHARED_FILES ${CMAKE_INSTALL_DATADIR}/lolcats-hpc)
set(PACKAGE_FILES ${CMAKE_INSTALL_LIBDIR}/cmake/lolcats)

# The library of kernels
install(TARGETS lolcats_settings lolcats_kernels EXPORT lolcats-targets)
install(EXPORT lolcats-targets NAMESPACE lolcats:: DESTINATION ${PACKAGE_FILES})
install(DIRECTORY kernels DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lolcats-hpc FILES_MATCHING PATTERN "*.hpp")
install(FILES include/lolcats/bfloat16.hpp include/lolcats/error.hpp include/lolcats/float8.hpp include/lolcats/model_config.hpp
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lolcats-hpc/lolcats)
configure_package_config_file(tools/packaging/lolcats-config.cmake.in ${CMAKE_BINARY_DIR}/lolcats-config.cmake
  INSTALL_DESTINATION ${PACKAGE_FILES})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/lolcats-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/lolcats-config.cmake ${CMAKE_BINARY_DIR}/lolcats-config-version.cmake
  DESTINATION ${PACKAGE_FILES})
if(LOLCATS_KERNELS_ONLY)
  return()
endif()

# Manual pages and completion, written at build time by a program that needs neither MPI nor a device.
add_executable(write_documents tools/packaging/write_documents.cpp src/documents.cpp src/settings.cpp kernels/feature_maps.cpp
  ${VERSION_SOURCE})
target_link_libraries(write_documents PRIVATE lolcats_settings)
know_no_arrays(write_documents)
string(TIMESTAMP TODAY "%Y-%m-%d" UTC) # or SOURCE_DATE_EPOCH
set(DOCUMENTS ${CMAKE_BINARY_DIR}/documents)
list(TRANSFORM PROGRAMS REPLACE "(.+)" "${DOCUMENTS}/\\1.1" OUTPUT_VARIABLE MANUAL_PAGES)
add_custom_command(OUTPUT ${MANUAL_PAGES} ${DOCUMENTS}/lolcats.bash COMMAND write_documents ${DOCUMENTS} ${TODAY}
  DEPENDS write_documents)
add_custom_target(documents ALL DEPENDS ${MANUAL_PAGES} ${DOCUMENTS}/lolcats.bash)
install(FILES ${MANUAL_PAGES} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
foreach(program IN LISTS PROGRAMS) # found by the name of the command
  install(FILES ${DOCUMENTS}/lolcats.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME ${program})
endforeach()

# The job scripts, with the programs where they are installed: LOLCATS_ROOT=PREFIX/share/lolcats-hpc sbatch ...
file(RELATIVE_PATH BINARIES ${CMAKE_INSTALL_FULL_DATADIR}/lolcats-hpc ${CMAKE_INSTALL_FULL_BINDIR})
file(READ jobs/site.sh SITE)
string(REGEX REPLACE "site_bin=[^\n]*" "site_bin=$root/${BINARIES}   # the compiled programs" SITE "${SITE}")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/site.sh CONTENT "${SITE}" @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/site.sh DESTINATION ${SHARED_FILES}/jobs)
# The tiny teacher and its corpus are the repository's.
install(DIRECTORY jobs DESTINATION ${SHARED_FILES} USE_SOURCE_PERMISSIONS
  PATTERN site.sh EXCLUDE PATTERN linearize_tiny.sh EXCLUDE)
foreach(room common evaluate export generate inspect tokenize)
  install(DIRECTORY tools/${room} DESTINATION ${SHARED_FILES}/tools USE_SOURCE_PERMISSIONS PATTERN __pycache__ EXCLUDE)
endforeach()
