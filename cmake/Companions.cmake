# Companions: one extension for each release of torch, whose name says which: _torch_2_15_0_abi1.
# Builds of one release differ in their local version (+cpu, +cu132), and not in what a companion
# uses; so the name has the public version, and whether the strings are those of C++11.

include(TorchRelease)

set(DLBRIDGE_COMPANIONS "" CACHE STRING
  "Folders of the package torch, or of its headers alone, to build companions for; empty: the torch that is found")

# A companion is loaded where torch is, and asks for its libraries by these names. So empty ones do
# for linking, and headers are all that is needed of a torch.
set(torch_stubs "")
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/stubs/empty.cpp" CONTENT "")
foreach(name IN ITEMS torch_cpu c10 torch_python)
  add_library(dlbridge_stub_${name} SHARED "${CMAKE_BINARY_DIR}/stubs/empty.cpp")
  set_target_properties(dlbridge_stub_${name} PROPERTIES
    OUTPUT_NAME ${name} LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/stubs")
  list(APPEND torch_stubs dlbridge_stub_${name})
endforeach()

function(dlbridge_torch_companion package)
  dlbridge_torch_release("${package}" version abi)
  string(REGEX REPLACE "\\+.*" "" public "${version}")
  string(REGEX REPLACE "[^0-9A-Za-z]" "_" name "_torch_${public}_abi${abi}")
  set(target dlbridge${name})
  dlbridge_extension(${target} ${name}
    SOURCES "${PROJECT_SOURCE_DIR}/bridges/python/src/torch/torch_companion.cpp" LINK dlbridge)
  target_compile_definitions(${target} PRIVATE
    DLBRIDGE_COMPANION_NAME=${name} _GLIBCXX_USE_CXX11_ABI=${abi})
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/bridges/torch/include")
  target_include_directories(${target} SYSTEM PRIVATE
    "${package}/include" "${package}/include/torch/csrc/api/include")
  target_link_libraries(${target} PRIVATE ${torch_stubs})
  target_link_options(${target} PRIVATE LINKER:--no-as-needed LINKER:--gc-sections)
  # Its file asks for torch's libraries by name; by then torch has loaded them.
  set_target_properties(${target} PROPERTIES SKIP_BUILD_RPATH ON SKIP_INSTALL_RPATH ON)
  set(torch_companions ${torch_companions} ${target} PARENT_SCOPE)
  message(STATUS "companion for torch ${public}: dlbridge.${name}")
endfunction()

set(torch_companions "")
if(DLBRIDGE_COMPANIONS)
  foreach(package ${DLBRIDGE_COMPANIONS})
    dlbridge_torch_companion("${package}")
  endforeach()
elseif(TARGET LibTorch::python)
  dlbridge_torch_companion("${LibTorch_PACKAGE_DIR}")
elseif(NOT DLBRIDGE_TORCH STREQUAL "OFF")
  message(WARNING "No torch was found, so there will be no companion for it: tensors of torch cross \
on the portable road, which is right, and slower. The wheels of dlbridge have companions; a build of \
your own gets one where torch is installed already: pip install --no-build-isolation . , or \
DLBRIDGE_COMPANIONS=<folder of the package torch>.")
endif()
add_custom_target(dlbridge_torch_companions DEPENDS ${torch_companions})
