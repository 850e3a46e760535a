# cmake --install: the core, the bridges, and a package for find_package(dlbridge).
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/dlbridge")
# All that names no other: the wheel takes this one.
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME cpp)

set(package_targets dlbridge dlbridge_arrow dlbridge_torch dlbridge_cpython dlbridge_numpy dlbridge_extension)
set(DLBRIDGE_HAS_CUDA FALSE)
if(TARGET dlbridge_cuda AND NOT SKBUILD)  # the wheel has its kernels already, in an extension
  set(DLBRIDGE_HAS_CUDA TRUE)
  list(APPEND package_targets dlbridge_cuda)
endif()
install(TARGETS ${package_targets} EXPORT dlbridgeTargets)
install(EXPORT dlbridgeTargets NAMESPACE dlbridge:: DESTINATION "${package_dir}")
install(
  DIRECTORY lib/include/ bridges/arrow/include/ bridges/torch/include/ bridges/cpython/include/ bridges/numpy/include/
            bridges/cuda/include/ bridges/python/include/
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES "${DLPack_HEADER}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/dlpack" RENAME dlpack.h)
list(TRANSFORM cpython_sources PREPEND bridges/cpython/src/ OUTPUT_VARIABLE compiled_there)
list(TRANSFORM numpy_sources PREPEND bridges/numpy/src/)
install(FILES ${compiled_there} ${numpy_sources} bridges/numpy/src/numpy_inexpressible.hpp
              bridges/numpy/src/numpy_subclasses.hpp
  DESTINATION "${CMAKE_INSTALL_DATADIR}/dlbridge")

if(TARGET dlbridge_c)
  # An export of its own: `cmake --install <build> --component c` installs this and nothing else.
  install(TARGETS dlbridge_c EXPORT dlbridgeCTargets COMPONENT c)
  install(EXPORT dlbridgeCTargets NAMESPACE dlbridge:: DESTINATION "${package_dir}" COMPONENT c)
  install(FILES lib/include/dlbridge/dlbridge.h
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/dlbridge" COMPONENT c)
  install(FILES "${DLPack_HEADER}"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/dlpack" RENAME dlpack.h COMPONENT c)
endif()

function(dlbridge_pkgconfig pc_name pc_language pc_libs component)
  set(pc_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
  file(RELATIVE_PATH prefix_from_pc "/prefix/${pc_dir}" "/prefix")
  configure_file(cmake/pkgconfig.pc.in "${PROJECT_BINARY_DIR}/${pc_name}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${pc_name}.pc" DESTINATION "${pc_dir}" COMPONENT ${component})
endfunction()
dlbridge_pkgconfig(dlbridge-core C++ "-L\${libdir} -ldlbridge_core -pthread" cpp)
if(TARGET dlbridge_c)
  dlbridge_pkgconfig(dlbridge C "-L\${libdir} -ldlbridge" c)
endif()

configure_package_config_file(cmake/dlbridgeConfig.cmake.in
  "${PROJECT_BINARY_DIR}/dlbridgeConfig.cmake" INSTALL_DESTINATION "${package_dir}"
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/dlbridgeConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
set(package_files
  "${PROJECT_BINARY_DIR}/dlbridgeConfig.cmake"
  "${PROJECT_BINARY_DIR}/dlbridgeConfigVersion.cmake"
  cmake/FindLibTorch.cmake cmake/PythonSite.cmake cmake/TorchRelease.cmake)
install(FILES ${package_files} DESTINATION "${package_dir}")
if(TARGET dlbridge_c)
  install(FILES ${package_files} DESTINATION "${package_dir}" COMPONENT c)
endif()
