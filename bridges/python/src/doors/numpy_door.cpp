// NumPy's arrays and scalars, by the bridge to NumPy.

#include "doors/dlpack_door.hpp"

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

}  // namespace

const Way kNumPyWay{"numpy.ndarray", describe_array, acquire, nullptr, take_by_dlpack};
const Way kNumPyScalarWay{"a NumPy scalar", describe_scalar, acquire, nullptr, take_by_dlpack};

}  // namespace dlbridge::python
