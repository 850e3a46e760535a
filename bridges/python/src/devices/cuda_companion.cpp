// dlbridge._cuda: the runtime for CUDA devices, as the module opens it.

#include <Python.h>

#include <exception>

#include "devices/companion_module.hpp"
#include "devices/device_companion.hpp"
#include "dlbridge/cuda.hpp"

namespace dlbridge::python {
namespace {

DeviceRuntime* open_runtime() {
  try {
    return &cuda_runtime();
  } catch (const std::exception&) {
    return nullptr;
  }
}

}  // namespace
}  // namespace dlbridge::python

PyMODINIT_FUNC PyInit__cuda() {
  using namespace dlbridge::python;
  static DeviceCompanion companion{DeviceCompanion::kInterface, &open_runtime};
  return companion_module("_cuda", "dlbridge's runtime for CUDA devices.", "runtime", &companion,
                          kDeviceCapsule);
}
