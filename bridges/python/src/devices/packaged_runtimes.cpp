#include "devices/packaged_runtimes.hpp"

#include <dlfcn.h>

#include <array>

namespace dlbridge::python {
namespace {

// A driver that is not loaded has no work under way.
void wait_for_cuda_driver() noexcept {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (driver == nullptr) {
    return;
  }
  if (auto* synchronise = reinterpret_cast<int (*)()>(dlsym(driver, "cuCtxSynchronize"))) {
    synchronise();
  }
  dlclose(driver);
}

constexpr std::array kPackagedRuntimes = {
    PackagedRuntime{DeviceSet::of({kDLCUDA, kDLCUDAHost, kDLCUDAManaged}), kDLCUDA, kDLCUDAManaged,
                    "dlbridge._cuda", "this dlbridge was built without CUDA", wait_for_cuda_driver},
};

}  // namespace

const PackagedRuntime* packaged_runtime(std::int32_t device_type) noexcept {
  for (const PackagedRuntime& each : kPackagedRuntimes) {
    if (each.types.contains(device_type)) {
      return &each;
    }
  }
  return nullptr;
}

}  // namespace dlbridge::python
