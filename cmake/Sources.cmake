# dlbridge_sources(OUT folder name...): the named sources of a folder.
#
# While the library is being written: a name that is not there yet is left out, a file that is not
# named yet is taken along, both with a message, and either change configures anew.
function(dlbridge_sources out folder)
  file(GLOB found CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}/${folder}"
    "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  foreach(name IN LISTS ARGN)
    if(NOT name IN_LIST found)
      message(STATUS "not written yet: ${folder}/${name}")
    endif()
  endforeach()
  foreach(name IN LISTS found)
    if(NOT name IN_LIST ARGN)
      message(STATUS "not listed yet: ${folder}/${name}")
    endif()
  endforeach()
  list(TRANSFORM found PREPEND "${PROJECT_SOURCE_DIR}/${folder}/")
  set(${out} "${found}" PARENT_SCOPE)
endfunction()
