# FindLibTorch: the CPU half of libtorch as LibTorch::torch, and LibTorch::python for extensions.
#
# Why not find_package(Torch): against a CUDA build of torch it switches on the CUDA language and
# links libtorch_cuda, which wants nvcc and the NCCL of its own wheel. dlbridge needs at::Tensor,
# nothing of CUDA: libtorch_cpu and libc10 are enough, for a CUDA build of torch as well.
#
# Searched: LibTorch_ROOT (a libtorch folder), CMAKE_PREFIX_PATH, then the package torch of the
# chosen Python interpreter, by path: torch is never imported.
#
# Sets LibTorch_FOUND, LibTorch_VERSION (as torch spells it, such as 2.15.0+cu132),
# LibTorch_INCLUDE_DIR, LibTorch_LIBRARY_DIR, LibTorch_PACKAGE_DIR.

include("${CMAKE_CURRENT_LIST_DIR}/PythonSite.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/TorchRelease.cmake")
include(FindPackageHandleStandardArgs)

dlbridge_python_site(_libtorch_site)
list(TRANSFORM _libtorch_site APPEND /torch)
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h PATHS ${_libtorch_site} PATH_SUFFIXES include
  DOC "torch's include folder")
set(_libtorch_root "${LibTorch_INCLUDE_DIR}/..")
foreach(_libtorch_part torch_cpu c10 torch_python)
  find_library(LibTorch_${_libtorch_part}_LIBRARY ${_libtorch_part}
    HINTS "${_libtorch_root}/lib" NO_DEFAULT_PATH)
  mark_as_advanced(LibTorch_${_libtorch_part}_LIBRARY)
endforeach()
mark_as_advanced(LibTorch_INCLUDE_DIR)

dlbridge_torch_release("${_libtorch_root}" LibTorch_VERSION _libtorch_abi)
get_filename_component(LibTorch_PACKAGE_DIR "${_libtorch_root}" ABSOLUTE)

find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_INCLUDE_DIR LibTorch_torch_cpu_LIBRARY LibTorch_c10_LIBRARY LibTorch_VERSION
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "Install torch into the Python that Python3_EXECUTABLE names, or give \
-DLibTorch_ROOT=<the libtorch folder>.")

if(LibTorch_FOUND)
  get_filename_component(LibTorch_LIBRARY_DIR "${LibTorch_c10_LIBRARY}" DIRECTORY)

  if(NOT TARGET LibTorch::torch)
    foreach(_libtorch_part torch_cpu c10)
      add_library(LibTorch::${_libtorch_part} SHARED IMPORTED)
      set_target_properties(LibTorch::${_libtorch_part} PROPERTIES
        IMPORTED_LOCATION "${LibTorch_${_libtorch_part}_LIBRARY}")
    endforeach()
    add_library(LibTorch::torch INTERFACE IMPORTED)
    # torch's libraries find their own dependencies by their RPATH when a program runs; the linker
    # need not check symbols in libraries (CUPTI and the like) of which nothing is used here.
    target_link_options(LibTorch::torch INTERFACE "LINKER:--allow-shlib-undefined")
    target_link_libraries(LibTorch::torch INTERFACE LibTorch::torch_cpu LibTorch::c10)
    target_include_directories(LibTorch::torch INTERFACE
      "${LibTorch_INCLUDE_DIR}" "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
    target_compile_features(LibTorch::torch INTERFACE cxx_std_17)
    target_compile_definitions(LibTorch::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=${_libtorch_abi})
  endif()

  if(LibTorch_torch_python_LIBRARY AND NOT TARGET LibTorch::python)
    add_library(LibTorch::python SHARED IMPORTED)
    set_target_properties(LibTorch::python PROPERTIES
      IMPORTED_LOCATION "${LibTorch_torch_python_LIBRARY}")
    target_link_libraries(LibTorch::python INTERFACE LibTorch::torch)
  endif()
endif()
