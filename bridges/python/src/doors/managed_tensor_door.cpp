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

void describe_capsule(Door& door) {
  door.object_name = kCapsuleLibrary.object;
  door.library = kCapsuleLibrary;
  if (door.look.only_look) {
    peek_capsule(door.readable, *door.library, door.source);
    return;
  }
  door.taken = take_capsule(door.readable, false);
  dlbridge::describe(door.taken, *door.library, door.source);
}

}  // namespace

const Way kManagedTensorWay{describe_managed, share, nullptr, take_share};
const Way kCapsuleWay{describe_capsule, give_taken, nullptr, describe_capsule};

}  // namespace dlbridge::python
