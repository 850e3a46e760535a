# One libFuzzer program for each file of tests/fuzz; the core is built for it as well. Clang only.
file(GLOB fuzz_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/fuzz/*.cpp")
foreach(source IN LISTS fuzz_sources)
  get_filename_component(name "${source}" NAME_WE)
  add_executable(${name} "${source}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(${name} PRIVATE dlbridge dlbridge_build_flags)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  if(name MATCHES "^c_interface")
    target_link_libraries(${name} PRIVATE dlbridge_c_objects)  # with the counters inside
  endif()
endforeach()
