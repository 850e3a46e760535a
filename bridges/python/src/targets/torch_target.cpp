#include "targets/torch_target.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute torch_to_device("dlbridge._torch", "to_device");
PackageAttribute torch_has_device("dlbridge._torch", "has_device");
PackageAttribute torch_empty("dlbridge._torch", "empty");

// A copy by a runtime, in memory of torch's own that its streams order.
Ref filled_by_runtime(Door& door, const Plan& plan) {
  const Ref shape = shape_tuple(door.source.tensor);
  Ref made = checked(
      PyObject_CallFunction(torch_empty.get(), "O(iii)ii", shape.get(),
                            static_cast<int>(plan.dtype.code), static_cast<int>(plan.dtype.bits),
                            static_cast<int>(plan.dtype.lanes), plan.device.type, plan.device.id));
  const Door there(made.get(), kTorchWay, {});
  (void)detail::carry(door, plan, {&there.source.tensor, torch_stream(plan.device)});
  return made;
}

// torch moves what it is given: its own tensor as it is, or a view or a copy of ours.
Ref moved_by_torch(Door& door, const Plan& plan, const Leg& leg) {
  const bool own = door.way == &kTorchWay && plan.leg_count == 1;
  const Ref here = own ? Ref::borrow(door.readable)
                       : kToTorch.made_of(ordered(detail::carry(door, plan), kToTorch.reader));
  return checked(
      PyObject_CallFunction(torch_to_device.get(), "Oii", here.get(), leg.to.type, leg.to.id));
}

}  // namespace

Stream TorchTarget::torch_or_managed_stream(Device device) {
  const bool there = runtime_for(device.type) != nullptr && !device.host_accessible();
  return there ? torch_stream(device) : stream_of_managed(device);
}

// Torch's table of capabilities, with the devices of this machine.
const Capabilities& TorchTarget::on_this_machine(const Capabilities& torch, Device device,
                                                 Door& door) {
  const Ref there = checked(PyObject_CallFunction(torch_has_device.get(), "i", device.type));
  if (there.get() == Py_True) {
    return torch;
  }
  Capabilities& can = door.capabilities.emplace(torch);
  can.devices = DeviceSet::host();
  can.wants_host = true;
  return can;
}

Ref TorchTarget::made_of(ManagedTensor tensor) const {
  tensor.drop_negative_strides();
  return made_by("torch.Tensor", torch_road()->deliver(tensor.release()));
}

Ref TorchTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  if (!plan.device.host_accessible()) [[unlikely]] {
    if (const Leg* leg = plan.leg_of(Who::kConsumer)) {
      return moved_by_torch(door, plan, *leg);
    }
    if (const Leg* leg = plan.leg_of(Who::kRuntime); leg != nullptr && leg->to == plan.device) {
      return filled_by_runtime(door, plan);
    }
    ManagedTensor tensor = ordered(detail::carry(door, plan), reader);
    return made_of(until_done_on(std::move(tensor), torch_stream(plan.device), run_with_gil));
  }
  return made_of(std::move(detail::carry(door, plan).tensor));
}

const TorchTarget kToTorch;

}  // namespace dlbridge::python
