# FindDLPack: the header dlpack/dlpack.h, 1.3 or a later 1.x, as the target DLPack::DLPack.
#
# Searched in this order:
#   1. a CMake package `dlpack` (DLPack's own install)
#   2. include folders: DLPack_ROOT, CMAKE_PREFIX_PATH, the system's
#   3. Python packages of the chosen interpreter: apache-tvm-ffi, then torch (ATen/dlpack.h, the same
#      header under the same include guard, reached through a forwarding header)
#   4. the tagged release, downloaded, only with DLBRIDGE_FETCH_DLPACK=ON
#
# A header that is too old (Debian's libdlpack-dev is 0.6) is passed over, not an error.
#
# Sets DLPack_FOUND, DLPack_VERSION, DLPack_INCLUDE_DIR, and DLPack_HEADER, the file itself.

include("${CMAKE_CURRENT_LIST_DIR}/PythonSite.cmake")
include(FindPackageHandleStandardArgs)

# The version that a header declares; "" for one without (macros for it came with 1.0).
function(_dlpack_version header out)
  set(version "")
  if(EXISTS "${header}")
    file(STRINGS "${header}" lines REGEX "#define DLPACK_(MAJOR|MINOR)_VERSION [0-9]+")
    if("${lines}" MATCHES "MAJOR_VERSION ([0-9]+).*MINOR_VERSION ([0-9]+)")
      set(version "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}")
    endif()
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

# find_path's validator: a folder whose header is too old, or of another major version, is no answer.
function(_dlpack_accept out folder)
  _dlpack_version("${folder}/dlpack/dlpack.h" version)
  if("${version}" VERSION_LESS 1.3 OR "${version}" VERSION_GREATER_EQUAL 2)
    set(${out} FALSE PARENT_SCOPE)
  endif()
endfunction()

if(NOT DLPack_INCLUDE_DIR)
  find_package(dlpack CONFIG QUIET)
  if(NOT dlpack_FOUND)
    unset(dlpack_DIR CACHE)
  endif()
  set(_dlpack_hint "")
  if(TARGET dlpack::dlpack)
    get_target_property(_dlpack_hint dlpack::dlpack INTERFACE_INCLUDE_DIRECTORIES)
  endif()
  dlbridge_python_site(_dlpack_site)
  list(TRANSFORM _dlpack_site APPEND /tvm_ffi/include OUTPUT_VARIABLE _dlpack_tvm_ffi)
  set(_dlpack_no_cache "")
  if(NOT PROJECT_IS_TOP_LEVEL)
    set(_dlpack_no_cache NO_CACHE)  # the cache is that of the project around this one
  endif()
  find_path(
    DLPack_INCLUDE_DIR dlpack/dlpack.h
    HINTS ${_dlpack_hint}
    PATHS ${_dlpack_tvm_ffi}
    VALIDATOR _dlpack_accept
    ${_dlpack_no_cache}
    DOC "The folder that holds dlpack/dlpack.h, 1.3 or a later 1.x")

  if(NOT DLPack_INCLUDE_DIR)
    foreach(_dlpack_folder IN LISTS _dlpack_site)
      set(_dlpack_torch "${_dlpack_folder}/torch/include/ATen/dlpack.h")
      _dlpack_version("${_dlpack_torch}" _dlpack_found)
      if("${_dlpack_found}" VERSION_GREATER_EQUAL 1.3 AND "${_dlpack_found}" VERSION_LESS 2)
        set(_dlpack_forward "${CMAKE_BINARY_DIR}/dlpack_from_torch")
        file(CONFIGURE OUTPUT "${_dlpack_forward}/dlpack/dlpack.h"
          CONTENT "#include \"@_dlpack_torch@\"\n" @ONLY)
        # Not cached: the next run looks again, so that a better place found later wins.
        set(DLPack_INCLUDE_DIR "${_dlpack_forward}")
        set(DLPack_VERSION "${_dlpack_found}")
        set(DLPack_HEADER "${_dlpack_torch}")
        break()
      endif()
    endforeach()
  endif()

  if(NOT DLPack_INCLUDE_DIR AND DLBRIDGE_FETCH_DLPACK)
    include(FetchContent)
    # SOURCE_SUBDIR names a folder without a CMakeLists.txt: the header is all that is wanted.
    FetchContent_Declare(dlpack_release
      GIT_REPOSITORY https://github.com/dmlc/dlpack.git
      GIT_TAG v1.3
      GIT_SHALLOW ON
      SOURCE_SUBDIR include)
    FetchContent_MakeAvailable(dlpack_release)
    set(DLPack_INCLUDE_DIR "${dlpack_release_SOURCE_DIR}/include")
  endif()
endif()

if(DLPack_INCLUDE_DIR AND NOT DLPack_VERSION)
  set(DLPack_HEADER "${DLPack_INCLUDE_DIR}/dlpack/dlpack.h")
  _dlpack_version("${DLPack_HEADER}" DLPack_VERSION)
endif()

find_package_handle_standard_args(
  DLPack
  REQUIRED_VARS DLPack_INCLUDE_DIR
  VERSION_VAR DLPack_VERSION
  REASON_FAILURE_MESSAGE "dlpack/dlpack.h 1.3 or a later 1.x is needed. Any of these gives it: \
pip install apache-tvm-ffi (into the Python that Python3_EXECUTABLE names), \
-DDLPack_ROOT=<where DLPack is installed>, or -DDLBRIDGE_FETCH_DLPACK=ON where there is internet.")

if(DLPack_FOUND AND NOT TARGET DLPack::DLPack)
  add_library(DLPack::DLPack INTERFACE IMPORTED)
  target_include_directories(DLPack::DLPack INTERFACE "${DLPack_INCLUDE_DIR}")
endif()
mark_as_advanced(DLPack_INCLUDE_DIR)
