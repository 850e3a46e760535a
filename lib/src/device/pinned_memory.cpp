#include "dlbridge/pinned_memory.hpp"

#include <algorithm>
#include <memory>

#include "device/pinned_pool.hpp"
#include "tensor/layout.hpp"

namespace dlbridge {

ManagedTensor allocate_pinned(DeviceRuntime& runtime, DType dtype,
                              std::span<const std::int64_t> shape) {
  DLTensor tensor = detail::host_tensor(dtype, shape);
  const std::size_t bytes = detail::bytes_to_allocate(tensor);
  struct Held {
    detail::PinnedPool& pool;
    detail::PinnedBlock block;
  };
  auto& pool = detail::PinnedPool::of(runtime);
  auto held = std::make_unique<Held>(Held{pool, pool.take(std::max<std::size_t>(1, bytes))});
  tensor.data = held->block.memory;
  return ManagedTensor::own(tensor, 0,
                            {held.release(), [](void* context) noexcept {
                               const std::unique_ptr<Held> owner(static_cast<Held*>(context));
                               owner->pool.give_back(owner->block);
                             }});
}

void release_pinned_memory(DeviceRuntime& runtime) {
  detail::PinnedPool::of(runtime).release_all();
}

}  // namespace dlbridge
