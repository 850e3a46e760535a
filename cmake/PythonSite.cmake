# dlbridge_python_site(OUT): the folders in which the chosen interpreter keeps its packages.
#
# They are searched by path and nothing is imported: importing torch takes seconds, and under pip's
# build isolation sys.path shows only the build requirements, while the environment that the wheel
# is for (and its torch) is still named by sysconfig.
include_guard(GLOBAL)

function(dlbridge_python_site out)
  # Python's three find modules each have a name for the same thing; take the one that is set.
  set(python "")
  foreach(name Python3_EXECUTABLE Python_EXECUTABLE)
    if(NOT python AND ${name})
      set(python "${${name}}")
    endif()
  endforeach()
  if(NOT python)
    find_package(Python3 QUIET COMPONENTS Interpreter)
    set(python "${Python3_EXECUTABLE}")
  endif()

  set(folders "")
  if(python)
    execute_process(
      COMMAND "${python}" -c "import sys, sysconfig
paths = [*sys.path, *(sysconfig.get_path(k) for k in ('purelib', 'platlib'))]
print(';'.join(p for p in paths if p.endswith(('site-packages', 'dist-packages'))))"
      OUTPUT_VARIABLE folders
      OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE failed)
    if(failed)
      set(folders "")
    endif()
    list(REMOVE_DUPLICATES folders)
  endif()
  set(${out} "${folders}" PARENT_SCOPE)
endfunction()
