#include "targets/managed_target.hpp"

#include "types/capsule.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

const Capabilities& legacy_capabilities() {
  static const Capabilities kLegacy = [] {
    Capabilities capabilities = managed_tensor_capabilities();
    capabilities.name = "a legacy capsule";
    capabilities.result = "PyCapsule";
    capabilities.readonly = ReadOnlySupport::kNever;
    capabilities.carries_padding = false;
    return capabilities;
  }();
  return kLegacy;
}

}  // namespace

const Capabilities& view_capabilities() {
  static const Capabilities kView = [] {
    Capabilities capabilities = managed_tensor_capabilities();
    capabilities.name = "a TensorView";
    capabilities.reads_unaligned = false;
    capabilities.wants_host = true;
    return capabilities;
  }();
  return kView;
}

namespace {

Stream default_stream(Device /*device*/) {
  return {};
}

}  // namespace

Ref ManagedTarget::made_of(ManagedTensor tensor) const {
  return wrap(std::move(tensor));
}

Ref ManagedTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  return made_of(ordered(detail::carry(door, plan), reader));
}

const Capabilities& CapsuleTarget::capabilities(Door& /*door*/, const Call& /*call*/) const {
  return versioned_ ? managed_tensor_capabilities() : legacy_capabilities();
}

Ref CapsuleTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  return make_capsule(ordered(detail::carry(door, plan), default_stream), versioned_);
}

const ManagedTarget kToManaged;

}  // namespace dlbridge::python
