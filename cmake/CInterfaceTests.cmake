# tests/c: the C interface from C++ with every mistake, from C99, from Rust, and its ABI.
enable_language(C)

dlbridge_test_program(c LINK dlbridge_c)
target_compile_features(dlbridge_c_tests PRIVATE cxx_std_20)  # which the library asks of nobody
if("thread" IN_LIST DLBRIDGE_SANITIZE)
  return()  # the others have no threads
endif()

# A program of tests/c that only the library is linked to.
function(dlbridge_c_program name)
  add_executable(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  target_compile_options(${name} PRIVATE -Wall -Wextra -pedantic $<$<BOOL:${DLBRIDGE_WERROR}>:-Werror>)
  target_link_libraries(${name} PRIVATE dlbridge_c dlbridge_build_flags)
endfunction()

dlbridge_c_program(c_example examples/c-interface/main.c)
add_test(NAME c.c99 COMMAND c_example)

dlbridge_c_program(c_abi tests/c/abi.c)
add_test(NAME c.abi COMMAND ${CMAKE_COMMAND}
  -D "LAYOUTS=${CMAKE_CROSSCOMPILING_EMULATOR};$<TARGET_FILE:c_abi>" -D LIBRARY=$<TARGET_FILE:dlbridge_c> -D NM=${CMAKE_NM}
  -D RECORD=${PROJECT_SOURCE_DIR}/tests/c/abi.txt -D FOUND=${CMAKE_BINARY_DIR}/abi.txt
  -P ${PROJECT_SOURCE_DIR}/tests/c/check_abi.cmake)

find_program(DLBRIDGE_RUSTC rustc DOC "The Rust compiler, for a test of the C interface")
set(rust_version 0)
if(DLBRIDGE_RUSTC)
  execute_process(COMMAND "${DLBRIDGE_RUSTC}" --version OUTPUT_VARIABLE rust_version)
  string(REGEX MATCH "[0-9]+\\.[0-9]+" rust_version "${rust_version}")
endif()
if(rust_version VERSION_GREATER_EQUAL 1.77)  # texts for C
  set(rust_program "${CMAKE_BINARY_DIR}/c_rust")
  add_custom_command(OUTPUT "${rust_program}"
    COMMAND "${DLBRIDGE_RUSTC}" --edition 2021 -D warnings -C opt-level=1
      -L $<TARGET_FILE_DIR:dlbridge_c> -C link-arg=-Wl,-rpath,$<TARGET_FILE_DIR:dlbridge_c>
      -o "${rust_program}" "${PROJECT_SOURCE_DIR}/tests/c/program.rs"
    DEPENDS dlbridge_c "${PROJECT_SOURCE_DIR}/tests/c/program.rs"
    COMMENT "Building tests/c/program.rs" VERBATIM)
  add_custom_target(dlbridge_c_rust ALL DEPENDS "${rust_program}")
  add_test(NAME c.rust COMMAND "${rust_program}")
  if("address" IN_LIST DLBRIDGE_SANITIZE)
    # Rust does not link its runtime, which has to be loaded first.
    execute_process(COMMAND "${CMAKE_CXX_COMPILER}" -print-file-name=libasan.so
      OUTPUT_VARIABLE runtime OUTPUT_STRIP_TRAILING_WHITESPACE)
    set_tests_properties(c.rust PROPERTIES ENVIRONMENT "LD_PRELOAD=${runtime}")
  endif()
else()
  message(STATUS "no rustc of 1.77 or later: the test of the C interface in Rust is left out")
endif()
