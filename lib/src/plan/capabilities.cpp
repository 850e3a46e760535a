#include "dlbridge/capabilities.hpp"

#include "dlbridge/convert.hpp"

namespace dlbridge {

const Capabilities& managed_tensor_capabilities() noexcept {
  static constexpr Capabilities kManagedTensor{
      .name = "a ManagedTensor",
      .result = "dlbridge.ManagedTensor",
      .devices = DeviceSet::everything(),
      .dtypes = DTypeSet::everything(),
      .reads_unaligned = true,
      .carries_padding = true,
  };
  return kManagedTensor;
}

}  // namespace dlbridge
