// Our own ManagedTensor, and raw capsules, which hold one already.

#include "doors/dlpack_door.hpp"
#include "types/capsule.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

constexpr Library kManagedLibrary{
    .name = "dlbridge",
    .object = "dlbridge.ManagedTensor",
    .fixes = {{{Condition::kReadOnly, "dlbridge.from_dlpack(x, copy=True)"},
               {Condition::kNegativeStrides, "dlbridge.from_dlpack(x, copy=True)"}}},
};
constexpr Library kCapsuleLibrary{.name = "dlpack", .object = "DLPack capsule"};

void describe_managed(Door& door) {
  dlbridge::describe(managed_of(door.readable), kManagedLibrary, door.source);
}

ManagedTensor share(Door& door) {
  return managed_of(door.readable).share();
}

void take_share(Door& door) {
  door.taken = managed_of(door.readable).share();
  describe_taken(door);
}

// Only looks: what is refused is still in its capsule.
void describe_capsule(Door& door) {
  door.object_name = kCapsuleLibrary.object;
  door.library = kCapsuleLibrary;
  peek_capsule(door.readable, *door.library, door.source);
}

ManagedTensor take_out(Door& door) {
  if (door.taken) {
    return std::move(door.taken);
  }
  ManagedTensor tensor = take_capsule(door.readable, false);
  tensor.relabel(door.source.tensor.device);
  door.taken_out = true;
  return tensor;
}

}  // namespace

const Way kManagedTensorWay{describe_managed, share, nullptr, take_share};
const Way kCapsuleWay{describe_capsule, take_out, nullptr, describe_capsule};

}  // namespace dlbridge::python
