# Flags of dlbridge's own build. They sit on a target that only our own targets link and that is
# never exported, so a warning or sanitizer option of ours reaches nobody else.
include_guard(GLOBAL)

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)  # -O2 -g
endif()

add_library(dlbridge_build_flags INTERFACE)
set(warnings -Wall -Wextra -Wshadow $<$<BOOL:${DLBRIDGE_WERROR}>:-Werror>)
set(cuda_warnings -Xcompiler=-Wall -Xcompiler=-Wextra -Xcompiler=-Wshadow
  "$<$<BOOL:${DLBRIDGE_WERROR}>:-Xcompiler=-Werror;-Werror=all-warnings>")
target_compile_options(dlbridge_build_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_warnings}>")

if(DLBRIDGE_SANITIZE)
  list(JOIN DLBRIDGE_SANITIZE "," sanitizers)
  # A finding ends the program, so that no test can pass over it.
  set(flags -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(dlbridge_build_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")
  target_link_options(dlbridge_build_flags INTERFACE ${flags})
endif()

# Hardening of every binary of ours; tests/python/module/test_security.py reads it back from the
# built files.
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  # nvcc hands its host compiler what it is told to.
  foreach(flag -fstack-protector-strong -fstack-clash-protection)
    target_compile_options(dlbridge_build_flags INTERFACE
      $<$<COMPILE_LANGUAGE:CXX>:${flag}> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${flag}>)
  endforeach()
  target_link_options(dlbridge_build_flags INTERFACE
    LINKER:-z,relro LINKER:-z,now LINKER:-z,noexecstack)
  if(DLBRIDGE_SANITIZE)
    # Only here: in what is shipped the assertions would ask for the libstdc++ of GCC 12.
    target_compile_definitions(dlbridge_build_flags INTERFACE _GLIBCXX_ASSERTIONS)
  else()
    # It needs optimisation, and has nothing to add to AddressSanitizer.
    target_compile_options(dlbridge_build_flags INTERFACE
      $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  endif()
endif()
