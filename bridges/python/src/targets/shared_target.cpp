#include "targets/shared_target.hpp"

#include <span>
#include <utility>

#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

Capabilities shared_capabilities(bool writable) {
  Capabilities capabilities = managed_tensor_capabilities();
  capabilities.name = "shared memory";
  capabilities.result = "dlbridge.Shared";
  capabilities.devices = DeviceSet::host();
  capabilities.wants_host = true;
  capabilities.gives_writable = writable;
  return capabilities;
}

}  // namespace

const Capabilities& SharedTarget::capabilities(Door& door, const Call& /*call*/) const {
  Traits& traits = door.source.traits;
  const bool writes = mode_ != SharedMode::kRead;
  traits.conditions.add_if(!can_share(door.source.tensor, mode_) ||
                               (writes && traits.conditions.has(Condition::kReadOnly)),
                           Condition::kNotShared);
  static const Capabilities kForReading = shared_capabilities(false);
  static const Capabilities kForWriting = shared_capabilities(true);
  return mode_ == SharedMode::kRead ? kForReading : kForWriting;
}

Ref SharedTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  SharedArena own(mode_);
  const detail::Room room{.allocate =
                              [](void* arena, DType dtype, std::span<const std::int64_t> shape) {
                                return static_cast<SharedArena*>(arena)->allocate(dtype, shape);
                              },
                          .context = arena_ ? &*arena_ : &own};
  ManagedTensor tensor =
      ordered(plan.view ? detail::carry(door, plan) : detail::carry(door, plan, room), reader);
  if (mode_ == SharedMode::kRead) {
    tensor.mark_read_only();
  }
  return wrap(std::move(tensor));
}

const SharedTarget kToProcess(SharedMode::kRead);

}  // namespace dlbridge::python
