#include "targets/shared_target.hpp"

#include <span>
#include <utility>

#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute stays("dlbridge.processes.devices", "stays");
PackageAttribute empty("dlbridge.processes.devices", "empty");

Capabilities shared_capabilities(bool writable, bool on_device) {
  Capabilities capabilities = managed_tensor_capabilities();
  capabilities.name = "shared memory";
  capabilities.result = "dlbridge.Shared";
  capabilities.devices = on_device ? DeviceSet::of({kDLCUDA}) : DeviceSet::host();
  capabilities.wants_host = !on_device;
  capabilities.gives_writable = writable;
  return capabilities;
}

// Of memory that stays on its device, whether others can map it there; nothing of other memory.
std::optional<bool> shared_on_device(const DLTensor& tensor, SharedMode mode,
                                     const Policy& policy) {
  if (tensor.device.device_type != kDLCUDA) [[likely]] {
    return std::nullopt;
  }
  const auto first = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
  const Extent extent = extent_of(tensor).value_or(Extent{first, first});
  const bool refuses = policy[Field::kDevice] == Ruling::kRefuse;
  const Ref said = checked(
      PyObject_CallFunction(stays.get(), "KKsO", static_cast<unsigned long long>(extent.first),
                            static_cast<unsigned long long>(extent.end),
                            kModes[static_cast<std::size_t>(mode)], refuses ? Py_True : Py_False));
  return said.get() == Py_None ? std::nullopt : std::optional(said.get() == Py_True);
}

}  // namespace

const Capabilities& SharedTarget::capabilities(Door& door, const Call& call) const {
  Conditions& conditions = door.source.traits.conditions;
  const DLTensor& tensor = door.source.tensor;
  const bool writes = mode_ != SharedMode::kRead;
  const std::optional<bool> there = shared_on_device(tensor, mode_, call.policy);
  const bool shared = there ? *there : can_share(tensor, mode_);
  conditions.add_if(!shared || (writes && conditions.has(Condition::kReadOnly)),
                    Condition::kNotShared);
  static const std::array<Capabilities, 4> kAll = {
      shared_capabilities(false, false), shared_capabilities(true, false),
      shared_capabilities(false, true), shared_capabilities(true, true)};
  return kAll[(writes ? 1U : 0U) + (there ? 2U : 0U)];
}

// A copy in a pool of the device that it is on, made there.
Ref SharedTarget::copied_there(Door& door, const Plan& plan) const {
  const DLTensor& like = door.source.tensor;
  const Ref shape = integer_tuple({like.shape, static_cast<std::size_t>(like.ndim)});
  Ref made = checked(PyObject_CallFunction(empty.get(), "(iii)Oi", plan.dtype.code, plan.dtype.bits,
                                           plan.dtype.lanes, shape.get(), plan.device.id));
  ManagedTensor& tensor = managed_of(made.get());
  (void)detail::carry(door, plan, {.tensor = &tensor.tensor(), .stream = reader(plan.device)});
  if (mode_ == SharedMode::kRead) {
    tensor.mark_read_only();
  }
  return made;
}

Ref SharedTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  if (!plan.view && !plan.device.host_accessible()) [[unlikely]] {
    return copied_there(door, plan);
  }
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
