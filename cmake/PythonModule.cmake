# The Python package: dlbridge._core, and companions for the torch and the CUDA that are there.
# In the build folder it lies complete under python/, so that PYTHONPATH=<build>/python works.

find_package(Python3 3.10 REQUIRED COMPONENTS Interpreter Development.Module NumPy)
set(package_dir "${CMAKE_BINARY_DIR}/python/dlbridge")

# An extension of the package: sources, then what it links.
function(dlbridge_extension target name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  Python3_add_library(${target} MODULE WITH_SOABI ${arg_SOURCES})
  target_link_libraries(${target} PRIVATE ${arg_LINK} dlbridge_build_flags)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/bridges/python/src")
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_sources(${target} PRIVATE "${PROJECT_SOURCE_DIR}/bridges/cpython/src/ended_threads.cpp")
    target_link_options(${target} PRIVATE "LINKER:--wrap=__gxx_personality_v0")
  endif()
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${name}
    LIBRARY_OUTPUT_DIRECTORY "${package_dir}"
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()

set(module_sources
  call.cpp
  devices/devices.cpp
  devices/packaged_runtimes.cpp
  doors/array_interface_door.cpp
  doors/array_method_door.cpp
  doors/arrow_door.cpp
  doors/bridge_door.cpp
  doors/dlpack_door.cpp
  doors/door.cpp
  doors/exchange_table.cpp
  doors/exchange_table_door.cpp
  doors/managed_tensor_door.cpp
  doors/numpy_door.cpp
  doors/registered_door.cpp
  doors/torch_door.cpp
  doors/ways.cpp
  errors.cpp
  crossing.cpp
  extension.cpp
  ledger.cpp
  module.cpp
  names.cpp
  registry.cpp
  sharing.cpp
  targets/argument_target.cpp
  targets/bridge_target.cpp
  targets/library_target.cpp
  targets/managed_target.cpp
  targets/numpy_target.cpp
  targets/pending_target.cpp
  targets/shared_target.cpp
  targets/target.cpp
  targets/torch_target.cpp
  torch/portable_torch.cpp
  torch/storage_views.cpp
  torch/torch_road.cpp
  trees.cpp
  types/arriving_type.cpp
  types/capsule.cpp
  types/managed_tensor_buffer.cpp
  types/managed_tensor_table.cpp
  types/managed_tensor_type.cpp)
list(TRANSFORM module_sources PREPEND "${PROJECT_SOURCE_DIR}/bridges/python/src/")
dlbridge_extension(dlbridge_python _core SOURCES ${module_sources}
  LINK dlbridge dlbridge_arrow dlbridge_c_inside dlbridge_numpy)
# For what the torch bridge says without torch: its vocabulary.
target_include_directories(dlbridge_python PRIVATE
  "${PROJECT_SOURCE_DIR}/bridges/torch/include" "${PROJECT_SOURCE_DIR}/bridges/python/include"
  "${PROJECT_SOURCE_DIR}/bridges/python/src")
target_compile_definitions(dlbridge_python PRIVATE DLBRIDGE_VERSION="${PROJECT_VERSION}")

include(Companions)

# The runtime for CUDA devices, apart from the module: _core stays small, and opens it when it is first
# needed. Without a driver it loads as well, and says so.
if(TARGET dlbridge_cuda)
  dlbridge_extension(dlbridge_cuda_companion _cuda
    SOURCES "${PROJECT_SOURCE_DIR}/bridges/python/src/devices/cuda_companion.cpp"
    LINK dlbridge dlbridge_cuda)
endif()

# All that a user of the package needs, and nothing else.
add_custom_target(dlbridge_package)
add_dependencies(dlbridge_package dlbridge_python dlbridge_torch_companions)
if(TARGET dlbridge_cuda_companion)
  add_dependencies(dlbridge_package dlbridge_cuda_companion)
endif()

# Python files need no compiler and no list. Links, to files and to rooms, so that an edit shows at
# once.
file(MAKE_DIRECTORY "${package_dir}")
file(GLOB children CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/bridges/python/dlbridge/*")
list(FILTER children EXCLUDE REGEX "__pycache__$")
foreach(child IN LISTS children)
  get_filename_component(name "${child}" NAME)
  file(CREATE_LINK "${child}" "${package_dir}/${name}" SYMBOLIC)
endforeach()

# Only scikit-build-core installs these: the wheel is the place for them, not a C++ prefix.
if(SKBUILD)
  install(TARGETS dlbridge_python LIBRARY DESTINATION . COMPONENT python)
  if(torch_companions)
    install(TARGETS ${torch_companions} LIBRARY DESTINATION . COMPONENT python)
  endif()
  if(TARGET dlbridge_cuda_companion)
    install(TARGETS dlbridge_cuda_companion LIBRARY DESTINATION . COMPONENT python)
  endif()
endif()
