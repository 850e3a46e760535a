#include "targets/bridge_target.hpp"

#include "doors/bridge_door.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute add_compiled("dlbridge._registry", "add_compiled");

}  // namespace

const Capabilities& BridgeTarget::capabilities(Door& door, const Call& /*call*/) const {
  return *checked_pointer(bridge_.capabilities(door.source));
}

Ref BridgeTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  ManagedTensor tensor = ordered(detail::carry(door, plan), reader);
  return checked(bridge_.deliver(tensor.release()));
}

void add_bridge(const detail::BridgeRow& bridge) {
  const Way* way = bridge.describe == nullptr ? nullptr : &way_of_bridge(bridge);
  if (way != nullptr) {
    add_way(bridge.type, *way);
  }
  Ref capsule = Ref::borrow(Py_None);
  if (bridge.deliver != nullptr) {
    capsule = target_capsule(std::make_unique<BridgeTarget>(bridge, way));
  }
  checked(
      PyObject_CallFunction(add_compiled.get(), "ssO", bridge.name, bridge.object, capsule.get()));
}

}  // namespace dlbridge::python
