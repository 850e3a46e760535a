# Holds the library's symbols and the layouts of its structs against the record in tests/c/abi.txt.
# A member or a function may be added at the end of a list with a new minor version; anything else
# that changes a line breaks compiled programs, and takes a new major version.
execute_process(COMMAND ${LAYOUTS} OUTPUT_VARIABLE found COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${NM}" -D --defined-only "${LIBRARY}"
  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[A-Za-z] [^ \n]+\n" symbols "${symbols}")
list(SORT symbols)
string(APPEND found "symbols\n")
foreach(symbol IN LISTS symbols)
  string(APPEND found "  ${symbol}")
endforeach()
file(WRITE "${FOUND}" "${found}")
file(READ "${RECORD}" recorded)
if(NOT found STREQUAL recorded)
  execute_process(COMMAND diff -u "${RECORD}" "${FOUND}")
  message(FATAL_ERROR "the ABI is not the recorded one: ${RECORD} against ${FOUND}")
endif()
