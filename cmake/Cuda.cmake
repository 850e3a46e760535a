# The bridge to CUDA, where there is a CUDA compiler: target dlbridge_cuda.

if(DLBRIDGE_CUDA STREQUAL "OFF")
  return()
endif()

# The same compiler for both halves; set before CMake looks for nvcc, or nvcc takes what is on PATH.
if(NOT CMAKE_CUDA_HOST_COMPILER)
  set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}" CACHE FILEPATH "nvcc's host compiler")
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(DLBRIDGE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "DLBRIDGE_CUDA=ON needs CUDA's compiler: put nvcc on PATH, or name it with CUDACXX.")
  endif()
  message(STATUS "nvcc not found: no CUDA runtime; DLBRIDGE_CUDA=ON insists on it")
  return()
endif()

# Machine code for these, of which nvcc may be too old to know the last; and PTX of the newest, which
# later devices translate for themselves. Binaries of one number run on all devices of its major.
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-code OUTPUT_VARIABLE known)
  set(architectures "")
  set(newest "")
  foreach(architecture IN ITEMS 80 90 100 120)
    if(known MATCHES "sm_${architecture}[^0-9a-z]")
      list(APPEND architectures ${architecture}-real)
      set(newest ${architecture}-virtual)
    endif()
  endforeach()
  set(CMAKE_CUDA_ARCHITECTURES ${architectures} ${newest} CACHE STRING "What the kernels are built for")
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

add_library(dlbridge_cuda
  bridges/cuda/src/cuda.cpp
  bridges/cuda/src/cuda_calls.cpp
  bridges/cuda/src/cuda_devices.cpp
  bridges/cuda/src/gpu_copy.cpp
  bridges/cuda/src/gpu_copy_kernels.cu)
add_library(dlbridge::cuda ALIAS dlbridge_cuda)
target_include_directories(dlbridge_cuda
  PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/bridges/cuda/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
  # The core's way to cut a copy into loops, and its small floats.
  PRIVATE "${PROJECT_SOURCE_DIR}/lib/src")
# Static: a program with this bridge starts on machines without CUDA.
target_link_libraries(dlbridge_cuda
  PUBLIC dlbridge
  PRIVATE CUDA::cudart_static $<BUILD_INTERFACE:dlbridge_build_flags>)
# Not CUDA_STANDARD: CMake 3.25 does not know C++20 of a later nvcc.
target_compile_options(dlbridge_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20> $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
set_target_properties(dlbridge_cuda PROPERTIES
  EXPORT_NAME cuda
  LINKER_LANGUAGE CXX
  CUDA_RUNTIME_LIBRARY None)  # linked above
dlbridge_linked_everywhere(dlbridge_cuda)
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: kernels for ${CMAKE_CUDA_ARCHITECTURES}")
