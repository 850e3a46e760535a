# dlbridge_torch_release(<folder of torch> OUT_VERSION OUT_ABI): its version, as torch spells it, and
# 1 where its strings are those of C++11: wheels before 2.7 were built with libstdc++'s old ones.
include_guard(GLOBAL)

function(dlbridge_torch_release package out_version out_abi)
  # A wheel has its version in version.py, libtorch's own archive in build-version.
  set(version "")
  if(EXISTS "${package}/version.py")
    file(STRINGS "${package}/version.py" line REGEX "^__version__ *=")
    string(REGEX REPLACE ".*['\"](.*)['\"].*" "\\1" version "${line}")
  elseif(EXISTS "${package}/build-version")
    file(STRINGS "${package}/build-version" version LIMIT_COUNT 1)
  endif()
  set(abi 1)
  set(config "${package}/share/cmake/Torch/TorchConfig.cmake")
  if(EXISTS "${config}")
    file(STRINGS "${config}" old REGEX "_GLIBCXX_USE_CXX11_ABI=0")
    if(old)
      set(abi 0)
    endif()
  endif()
  set(${out_version} "${version}" PARENT_SCOPE)
  set(${out_abi} "${abi}" PARENT_SCOPE)
endfunction()
