#include "doors/bridge_door.hpp"

#include "doors/dlpack_door.hpp"

namespace dlbridge::python {
namespace {

struct BridgeWay {
  Way way;
  const detail::BridgeRow& bridge;
};

const detail::BridgeRow& bridge_of(const Door& door) {
  return reinterpret_cast<const BridgeWay*>(door.way)->bridge;
}

ManagedTensor owned(DLManagedTensorVersioned* tensor) {
  return ManagedTensor::adopt(checked_pointer(tensor));
}

void describe(Door& door) {
  checked(bridge_of(door).describe(door.readable, door.source));
}

ManagedTensor acquire(Door& door) {
  ManagedTensor tensor = owned(bridge_of(door).acquire(door.readable));
  tensor.relabel(door.source.tensor.device);  // which the door may have found out
  return tensor;
}

ManagedTensor prepare(Door& door, const Leg& leg, Source& made) {
  return owned(bridge_of(door).prepare(door.readable, leg, made));
}

}  // namespace

const Way& way_of_bridge(const detail::BridgeRow& bridge) {
  return (new BridgeWay{
              {describe, acquire, bridge.prepare == nullptr ? nullptr : prepare, take_by_bridge},
              bridge})
      ->way;
}

}  // namespace dlbridge::python
