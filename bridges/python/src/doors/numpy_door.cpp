// NumPy's arrays and scalars, by the bridge to NumPy.

#include "doors/dlpack_door.hpp"

namespace dlbridge::python {
namespace {

void describe_array(Door& door) {
  NumPy::describe(door.readable, door.source);
}

void describe_scalar(Door& door) {
  door.held = Ref(NumPy::array_of_scalar(door.readable));
  door.readable = door.held.get();
  describe_array(door);
}

ManagedTensor acquire(Door& door) {
  return NumPy::acquire(door.readable, door.source);
}

Glance plain(PyObject* array, DLTensor& tensor) {
  return NumPy::plain(array, tensor);
}

Lease lease(PyObject* array, DLTensor& tensor) {
  return NumPy::lease(array, tensor);
}

}  // namespace

const Way kNumPyWay{describe_array, acquire, nullptr, take_by_bridge, plain, lease};
const Way kNumPyScalarWay{describe_scalar, acquire, nullptr, take_by_bridge};

}  // namespace dlbridge::python
