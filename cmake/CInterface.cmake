# The C interface of lib/include/dlbridge/dlbridge.h: libdlbridge.so, with the core inside it.
set(c_header "${PROJECT_SOURCE_DIR}/lib/include/dlbridge/dlbridge.h")
foreach(part IN ITEMS MAJOR MINOR)
  # The one place of the interface's version, which is not the project's.
  file(STRINGS "${c_header}" line REGEX "^#define DLBRIDGE_ABI_${part} [0-9]+$")
  string(REGEX MATCH "[0-9]+$" c_abi_${part} "${line}")
endforeach()

# As objects: for the library and for the fuzz target, which looks inside; and, with names that stay
# inside, for the Python module, which hands out the table.
foreach(kind IN ITEMS objects inside)
  add_library(dlbridge_c_${kind} OBJECT EXCLUDE_FROM_ALL
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_api.cpp"
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_arguments.cpp"
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_doors.cpp"
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_error.cpp"
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_plan.cpp"
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_source.cpp"
    "${PROJECT_SOURCE_DIR}/lib/src/c/c_tensors.cpp")
  target_include_directories(dlbridge_c_${kind} PRIVATE "${PROJECT_SOURCE_DIR}/lib/src")
  target_link_libraries(dlbridge_c_${kind} PRIVATE dlbridge dlbridge_build_flags)
  set_target_properties(dlbridge_c_${kind} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endforeach()
target_compile_definitions(dlbridge_c_inside PRIVATE DLBRIDGE_EXPORT=)

if(NOT DLBRIDGE_C)
  return()
endif()
if(BUILD_SHARED_LIBS)
  message(STATUS "no C interface: it is a libdlbridge.so of its own, with a static core inside")
  return()
endif()

add_library(dlbridge_c SHARED $<TARGET_OBJECTS:dlbridge_c_objects>)
add_library(dlbridge::c ALIAS dlbridge_c)
target_include_directories(dlbridge_c INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/lib/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(dlbridge_c
  PUBLIC DLPack::DLPack
  PRIVATE $<BUILD_INTERFACE:dlbridge> $<BUILD_INTERFACE:dlbridge_build_flags>)
set_target_properties(dlbridge_c PROPERTIES
  OUTPUT_NAME dlbridge EXPORT_NAME c LINKER_LANGUAGE CXX
  VERSION ${c_abi_MAJOR}.${c_abi_MINOR}.0 SOVERSION ${c_abi_MAJOR})
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(map "${PROJECT_SOURCE_DIR}/lib/src/c/dlbridge.map")
  set_target_properties(dlbridge_c PROPERTIES LINK_DEPENDS "${map}")
  # Tensors that it gave may outlive a dlclose(): their deleters have to stay.
  target_link_options(dlbridge_c PRIVATE
    "LINKER:--version-script=${map}" LINKER:-z,nodelete LINKER:--gc-sections)
endif()
