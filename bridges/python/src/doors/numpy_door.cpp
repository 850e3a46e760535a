// NumPy's arrays and scalars, by the bridge to NumPy.

#include "doors/dlpack_door.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

void describe_array(Door& door) {
  NumPy::describe(door.readable, door.source);
}

void describe_scalar(Door& door) {
  door.held = Ref(NumPy::array_of_scalar(door.object));
  door.readable = door.held.get();
  describe_array(door);
}

ManagedTensor acquire(Door& door) {
  return NumPy::acquire(door.readable, door.source);
}

// What a registered library named in its object's place: it speaks as that library.
void take_array(Door& door) {
  if (door.row != nullptr && door.row->immutable) {
    take_by_dlpack(door);  // the array itself does not know
    return;
  }
  door.way = &kNumPyWay;
  describe_array(door);
  door.source.traits.library = &*door.library;
  door.source.fix = {};  // NumPy's own words for its own arrays
}

}  // namespace

const Way kNumPyWay{describe_array, acquire, nullptr, take_array};
const Way kNumPyScalarWay{describe_scalar, acquire, nullptr, take_by_dlpack};

}  // namespace dlbridge::python
