# GoogleTest programs, one for each room of tests/, and the probe extension for pytest.
# Test files are globbed: one that nobody listed would be one that nobody runs.

set(DLBRIDGE_GOOGLETEST "" CACHE PATH "GoogleTest's sources, where no package of it fits the compiler")
if(DLBRIDGE_GOOGLETEST)
  add_subdirectory(${DLBRIDGE_GOOGLETEST} googletest EXCLUDE_FROM_ALL SYSTEM)
else()
  find_package(GTest REQUIRED)
endif()

# Test files take most of a build's time, and a third to two thirds of that is the optimiser's. What
# they test is optimised: the core, the modules and the companions.
add_library(dlbridge_test_flags INTERFACE)
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  target_compile_options(dlbridge_test_flags INTERFACE -U_FORTIFY_SOURCE -O0)
endif()

# ThreadSanitizer is slow, and has nothing to say where there is one thread: test files without
# threads are left out.
if("thread" IN_LIST DLBRIDGE_SANITIZE)
  add_custom_target(thread_tests)
endif()
function(dlbridge_keep_threads sources_name)
  foreach(source IN LISTS ${sources_name})
    file(STRINGS "${source}" threads REGEX "std::(thread|async)|on_threads")
    if(threads OR NOT source MATCHES "_test\\.cpp$")
      list(APPEND kept "${source}")
    endif()
  endforeach()
  set(${sources_name} ${kept} PARENT_SCOPE)
endfunction()

# room: folder under tests/; LINK: what it tests; ENVIRONMENT: for its tests; LEAKS_AT_EXIT: what it
# embeds frees less than everything (CPython), so only the tests' own counters can find a leak.
function(dlbridge_test_program room)
  cmake_parse_arguments(arg "LEAKS_AT_EXIT" "" "LINK;ENVIRONMENT" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/${room}/*.cpp")
  if("thread" IN_LIST DLBRIDGE_SANITIZE)
    dlbridge_keep_threads(sources)
  endif()
  if(NOT sources)
    message(STATUS "no tests: tests/${room}")
    return()
  endif()
  set(target dlbridge_${room}_tests)
  add_executable(${target} ${sources})
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  # A room that needs a main of its own (an embedded interpreter) brings one in main.cpp.
  set(main GTest::gtest_main)
  if("${sources}" MATCHES "/${room}/main\\.cpp")
    set(main GTest::gtest)
  endif()
  target_link_libraries(${target} PRIVATE ${arg_LINK} GTest::gmock ${main}
    dlbridge_build_flags dlbridge_test_flags)
  if(arg_LEAKS_AT_EXIT AND "address" IN_LIST DLBRIDGE_SANITIZE)
    # In the program, not in the environment: listing its tests while building must pass as well.
    file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/no_leak_check.cpp" CONTENT
      "extern \"C\" const char* __asan_default_options() { return \"detect_leaks=0\"; }\n")
    target_sources(${target} PRIVATE "${CMAKE_BINARY_DIR}/no_leak_check.cpp")
  endif()
  if("thread" IN_LIST DLBRIDGE_SANITIZE)
    # Tests fork while they have threads.
    list(APPEND arg_ENVIRONMENT "TSAN_OPTIONS=die_after_fork=0 history_size=4")
    add_dependencies(thread_tests ${target})
  endif()
  # One process for a room: loading torch takes longer than any of its tests.
  add_test(NAME ${room} COMMAND ${target})
  set_tests_properties(${room} PROPERTIES TIMEOUT 600 ENVIRONMENT "${arg_ENVIRONMENT}")
endfunction()

dlbridge_test_program(lib LINK dlbridge)
# It compares millions of elements, one by one.
set_source_files_properties("${PROJECT_SOURCE_DIR}/tests/lib/copy/copy_test.cpp"
  PROPERTIES COMPILE_OPTIONS "$<$<CXX_COMPILER_ID:GNU,Clang>:-O1>")
# CUDA's own mdspan, for compilers whose library has none.
if(TARGET dlbridge_cuda)
  list(TRANSFORM CUDAToolkit_INCLUDE_DIRS APPEND "/cccl" OUTPUT_VARIABLE cccl)
  set_source_files_properties("${PROJECT_SOURCE_DIR}/tests/lib/tensor/mdspan_test.cpp"
    PROPERTIES INCLUDE_DIRECTORIES "${CUDAToolkit_INCLUDE_DIRS};${cccl}")
endif()
# Memory that ends: what our own code asks of these is asked of tests/lib/memory/failing_memory.cpp.
set(memory_that_ends LINKER:--wrap=malloc,--wrap=aligned_alloc,--wrap=mmap)
target_link_options(dlbridge_lib_tests PRIVATE ${memory_that_ends})
# The core as any system but Linux has it: what asks for __linux__ is compiled without that word, and
# tests/lib asks it what memory and threads are to do.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT "thread" IN_LIST DLBRIDGE_SANITIZE)
  foreach(source IN LISTS core_sources)
    file(STRINGS "${PROJECT_SOURCE_DIR}/${source}" of_linux REGEX "__linux__")
    if(of_linux)
      list(APPEND sources_of_linux "${PROJECT_SOURCE_DIR}/${source}")
    endif()
  endforeach()
  add_library(dlbridge_without_linux OBJECT ${sources_of_linux})
  target_compile_options(dlbridge_without_linux PRIVATE -U__linux__)
  target_include_directories(dlbridge_without_linux PRIVATE "${PROJECT_SOURCE_DIR}/lib/src")
  target_link_libraries(dlbridge_without_linux PRIVATE dlbridge dlbridge_build_flags)
  set(tests OtherSystems MemoryPool MemoryThatEnds ManagedTensor HelpersOfACopy Threads)
  list(TRANSFORM tests APPEND ".*")
  list(JOIN tests ":" tests)
  dlbridge_test_program(other_systems LINK dlbridge dlbridge_without_linux
    ENVIRONMENT "GTEST_FILTER=${tests}" DLBRIDGE_NUM_THREADS= OMP_NUM_THREADS=)
  target_sources(dlbridge_other_systems_tests PRIVATE $<TARGET_OBJECTS:dlbridge_lib_tests>)
  target_link_options(dlbridge_other_systems_tests PRIVATE ${memory_that_ends})
endif()
dlbridge_test_program(guarded LINK dlbridge)
dlbridge_test_program(arrow LINK dlbridge_arrow)

# The shared library as others see it.
if(TARGET dlbridge_c)
  include(CInterfaceTests)
endif()

if(TARGET LibTorch::torch)
  dlbridge_test_program(torch LINK dlbridge_torch)
endif()

# How copies are cut for a device and what its threads do, run on the host: no CUDA is needed.
dlbridge_test_program(cuda LINK dlbridge)
if(TARGET dlbridge_cuda_tests)
  target_sources(dlbridge_cuda_tests PRIVATE
    "${PROJECT_SOURCE_DIR}/bridges/cuda/src/gpu_copy.cpp")
  target_include_directories(dlbridge_cuda_tests PRIVATE
    "${PROJECT_SOURCE_DIR}/bridges/cuda/src" "${PROJECT_SOURCE_DIR}/lib/src")
endif()
# On a device: every test says that it is skipped where there is none.
if(TARGET dlbridge_cuda)
  dlbridge_test_program(gpu LINK dlbridge_cuda CUDA::cudart_static)
endif()

if(DLBRIDGE_PYTHON)
  find_package(Python3 QUIET COMPONENTS Interpreter Development.Module Development.Embed NumPy)
  if(Python3_Development.Embed_FOUND)
    # The embedded interpreter is the base one; it finds the environment's packages by PYTHONPATH.
    list(JOIN Python3_SITEARCH ":" site)
    dlbridge_test_program(numpy LINK dlbridge_numpy Python3::Python
      ENVIRONMENT "PYTHONPATH=${site}" LEAKS_AT_EXIT)
  else()
    message(WARNING "tests/numpy is left out: this Python has no libpython to embed")
  endif()

  # The probe opens doors for pytest that only C can reach.
  # nanobind names its Python targets Python::, not Python3::
  set(Python_EXECUTABLE "${Python3_EXECUTABLE}")
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
  execute_process(COMMAND "${Python3_EXECUTABLE}" -m nanobind --cmake_dir
    OUTPUT_VARIABLE nanobind_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
  find_package(nanobind CONFIG REQUIRED)
  nanobind_add_module(dlbridge_probe NB_STATIC NB_SUPPRESS_WARNINGS
    tests/python/support/probe/probe.cpp tests/python/support/probe/failing_calls.cpp
    tests/python/support/probe/numpy_memory.cpp)
  target_link_libraries(dlbridge_probe PRIVATE dlbridge Python3::NumPy dlbridge_build_flags)
  # The module as any system but Linux has it: without a personality routine of its own. The probe's
  # folder is where pytest finds it.
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    Python3_add_library(dlbridge_without_linux_core MODULE WITH_SOABI
      $<FILTER:$<TARGET_OBJECTS:dlbridge_python>,EXCLUDE,ended_threads>)
    target_link_libraries(dlbridge_without_linux_core PRIVATE
      dlbridge dlbridge_arrow dlbridge_c_inside dlbridge_build_flags)
    set_target_properties(dlbridge_without_linux_core PROPERTIES
      LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/python")
  endif()
  # The guarded device for pytest, and torch's backend on it.
  set(guarded_sources tests/guarded/guarded_device.cpp tests/guarded/guarded_memory.cpp
    tests/guarded/guarded_streams.cpp)
  nanobind_add_module(dlbridge_guarded NB_STATIC NB_SUPPRESS_WARNINGS
    tests/python/support/guarded/guarded_module.cpp ${guarded_sources})
  target_link_libraries(dlbridge_guarded PRIVATE dlbridge dlbridge_build_flags)
  target_include_directories(dlbridge_guarded PRIVATE
    "${PROJECT_SOURCE_DIR}/tests" "${PROJECT_SOURCE_DIR}/bridges/python/src")
  set_target_properties(dlbridge_guarded PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/python")
  if(TARGET LibTorch::python)
    Python3_add_library(dlbridge_guarded_torch MODULE WITH_SOABI
      tests/python/support/guarded/guarded_torch.cpp ${guarded_sources})
    target_link_libraries(dlbridge_guarded_torch PRIVATE
      dlbridge LibTorch::python dlbridge_build_flags)
    target_include_directories(dlbridge_guarded_torch PRIVATE "${PROJECT_SOURCE_DIR}/tests")
    set_target_properties(dlbridge_guarded_torch PROPERTIES
      LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/python"
      CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  endif()
  # Functions that take tensors through our type casters.
  execute_process(COMMAND "${Python3_EXECUTABLE}" -m pybind11 --cmakedir
    OUTPUT_VARIABLE pybind11_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(PYBIND11_FINDPYTHON NEW)
  find_package(pybind11 CONFIG REQUIRED)
  nanobind_add_module(dlbridge_nanobind_casters NB_STATIC NB_SUPPRESS_WARNINGS
    tests/python/support/casters/nanobind_casters.cpp)
  pybind11_add_module(dlbridge_pybind11_casters tests/python/support/casters/pybind11_casters.cpp)
  foreach(casters IN ITEMS dlbridge_nanobind_casters dlbridge_pybind11_casters)
    target_link_libraries(${casters} PRIVATE dlbridge_extension dlbridge_build_flags)
  endforeach()
  set_target_properties(dlbridge_probe dlbridge_nanobind_casters dlbridge_pybind11_casters
    PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/python")
endif()

# The projects of examples/, and the manual's, are outside projects: each is configured, built and
# run against an installed dlbridge, as its user would.
set(prefix "${CMAKE_BINARY_DIR}/prefix")
add_test(NAME install
  COMMAND ${CMAKE_COMMAND} --install "${CMAKE_BINARY_DIR}" --prefix "${prefix}")
set_tests_properties(install PROPERTIES FIXTURES_SETUP installed)

function(dlbridge_example_project folder)
  get_filename_component(name ${folder} NAME)
  set(binary_dir "${CMAKE_BINARY_DIR}/examples/${name}")
  add_test(NAME example.${name} COMMAND
    ${CMAKE_CTEST_COMMAND}
      --build-and-test "${PROJECT_SOURCE_DIR}/${folder}" "${binary_dir}"
      --build-generator "${CMAKE_GENERATOR}"
      --build-options
        "-DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE}"
        "-DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}"
        "-DCMAKE_PREFIX_PATH=${prefix}"
        "-DPython3_EXECUTABLE=${Python3_EXECUTABLE}"
      --test-command ${CMAKE_CTEST_COMMAND} --output-on-failure --no-tests=error)
  set_tests_properties(example.${name} PROPERTIES FIXTURES_REQUIRED installed TIMEOUT 600
    # Where the Python package is: an extension asks it for its tensors.
    ENVIRONMENT_MODIFICATION "PYTHONPATH=path_list_prepend:${CMAKE_BINARY_DIR}/python")
endfunction()

# A static core built with a sanitizer would ask for its runtime in the examples' programs.
if(NOT DLBRIDGE_SANITIZE)
  dlbridge_example_project(examples/cpp-frameworks)
  if(TARGET dlbridge_c)
    dlbridge_example_project(examples/c-interface)
  endif()
  find_program(PKG_CONFIG pkg-config)
  function(dlbridge_by_pkg_config name package compile)
    set(linked "${CMAKE_BINARY_DIR}/${name}_by_pkg_config")
    add_test(NAME install.pkg_config.${name} COMMAND sh -c "${compile} -o ${linked} \
$(${PKG_CONFIG} --cflags --libs ${package}) -Wl,-rpath,${prefix}/${CMAKE_INSTALL_LIBDIR} && ${linked}")
    set_tests_properties(install.pkg_config.${name} PROPERTIES FIXTURES_REQUIRED installed
      ENVIRONMENT "PKG_CONFIG_PATH=${prefix}/${CMAKE_INSTALL_LIBDIR}/pkgconfig")
  endfunction()
  if(PKG_CONFIG)
    dlbridge_by_pkg_config(cpp dlbridge-core
      "${CMAKE_CXX_COMPILER} -std=c++20 ${PROJECT_SOURCE_DIR}/docs/code/questions.cpp")
  endif()
  if(PKG_CONFIG AND TARGET dlbridge_c)
    dlbridge_by_pkg_config(c dlbridge
      "${CMAKE_C_COMPILER} -std=c99 ${PROJECT_SOURCE_DIR}/examples/c-interface/main.c")
  endif()
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    dlbridge_example_project(examples/cpp-processes)
  endif()
  if(TARGET LibTorch::torch)
    dlbridge_example_project(examples/cpp-libtorch)
  endif()
  if(DLBRIDGE_PYTHON)
    dlbridge_example_project(examples/python-extension)
    dlbridge_example_project(examples/registered-library)
    dlbridge_example_project(docs/code)
    if(TARGET LibTorch::torch)
      dlbridge_example_project(examples/torch-operator)
    endif()
    # The wheel as other builds find it, with examples/abi3-extension as one of these.
    add_test(NAME install.package COMMAND "${Python3_EXECUTABLE}" -m pytest -q -p no:cacheprovider
      "${PROJECT_SOURCE_DIR}/tests/install")
    set_tests_properties(install.package PROPERTIES TIMEOUT 600 ENVIRONMENT
      "DLBRIDGE_BUILD=${CMAKE_BINARY_DIR};CMAKE_COMMAND=${CMAKE_COMMAND};CXX=${CMAKE_CXX_COMPILER};NVCC=${CMAKE_CUDA_COMPILER}")
  endif()
endif()

# What `make instructions` counts under callgrind. Not built with the rest: it takes valgrind's
# header.
if(TARGET LibTorch::torch)
  add_executable(dlbridge_counted_crossings EXCLUDE_FROM_ALL
    bench/instructions/crossings.cpp bench/instructions/switch.cpp)
  target_link_libraries(dlbridge_counted_crossings PRIVATE dlbridge_torch dlbridge_build_flags)
endif()
