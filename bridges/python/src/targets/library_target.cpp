#include "targets/library_target.hpp"

#include "ledger.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute hand_over("dlbridge._targets", "hand_over");

}  // namespace

bool LibraryTarget::keeps(PyObject* object, const Way& way, const Call& call) const {
  const Request& request = call.request;
  if (&way == &kRegisteredWay || call.policy.copy() == CopyRule::kAlways || request.dtype ||
      request.device || request.c_order || request.writable) {
    return false;
  }
  const LibraryRow* row = library_known_of(Py_TYPE(object));
  return row != nullptr && row->name == row_.name;
}

bool LibraryTarget::owns(const Door& door) const {
  return door.row != nullptr && door.row->name == row_.name;
}

// What the library cannot read where it lies is brought to the host, if it reads that.
const Capabilities& LibraryTarget::capabilities(Door& door, const Call& /*call*/) const {
  (void)runtime_for(row_.capabilities.own_device);
  Capabilities& can = door.capabilities.emplace(row_.capabilities);
  can.name = row_.name;
  can.result = row_.result;
  can.wants_host =
      can.devices.contains(kDLCPU) && !can.devices.contains(door.source.tensor.device.device_type);
  return can;
}

Ref LibraryTarget::deliver(Door& door, const Plan& plan, const Call& call) const {
  const Capabilities& can = row_.capabilities;
  ManagedTensor tensor = ordered(detail::carry(door, plan), reader);
  if (can.strides != StrideSupport::kAny) {
    tensor.drop_negative_strides();
  }
  if (can.devices != DeviceSet::everything() && tensor.device().host_accessible()) {
    tensor.relabel(Device{});  // pinned memory is the host's to whoever reads it there
  }
  if (tensor.readonly() && can.readonly != ReadOnlySupport::kHonours) {
    // The policy said to, or the library copies: its kind of capsule cannot carry the flag.
    tensor = without_read_only(std::move(tensor));
  }
  const Ref managed = wrap(std::move(tensor));
  const bool may_copy = call.policy.copy() != CopyRule::kNever;
  Ref taken;
  {
    const Handing handing;
    taken = Ref(PyObject_CallFunctionObjArgs(hand_over.get(), row_.library, managed.get(),
                                             plan.view ? Py_True : Py_False,
                                             may_copy ? Py_True : Py_False, nullptr));
  }
  if (!taken) {
    refused_by_row();
    throw PythonError();
  }
  return taken;
}

std::vector<std::string> LibraryTarget::notes(const Plan& plan) const {
  if (plan.itself) {
    return {};
  }
  std::vector<std::string> told = row_.always;
  for (const auto& [condition, text] : row_.quirks) {
    if (plan.reasons.has(condition)) {
      told.push_back(text);
    }
  }
  return told;
}

}  // namespace dlbridge::python
