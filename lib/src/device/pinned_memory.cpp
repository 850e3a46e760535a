#include "dlbridge/pinned_memory.hpp"

#include <algorithm>

#include "device/pinned_pool.hpp"
#include "tensor/layout.hpp"

namespace dlbridge {

ManagedTensor allocate_pinned(DeviceRuntime& runtime, DType dtype,
                              std::span<const std::int64_t> shape) {
  DLTensor tensor = detail::host_tensor(dtype, shape);
  const std::size_t bytes = detail::bytes_to_allocate(tensor);
  auto& pool = detail::PinnedPool::of(runtime);
  const detail::PinnedBlock block = pool.take(std::max<std::size_t>(1, bytes));
  tensor.data = block.memory;
  return ManagedTensor::own(tensor, 0,
                            Lease::calling([&pool, block]() noexcept { pool.give_back(block); }));
}

void release_pinned_memory(DeviceRuntime& runtime) {
  detail::PinnedPool::of(runtime).release_all();
}

}  // namespace dlbridge
