// Objects of libraries without a bridge: what their row in the registry says of them comes first.

#include "doors/dlpack_door.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

[[noreturn]] void raise_no_array(PyObject* object) {
  raise(PyExc_TypeError, std::string("expected an array or tensor, not ") +
                             Py_TYPE(object)->tp_name +
                             " (it has none of the exchange table, __dlpack__, the array "
                             "interfaces, the buffer protocol and Arrow's C interface)");
}

}  // namespace

void describe_by_registry(Door& door) {
  name_library(door);
  const LibraryRow* row = door.row;
  const Way* way = door.way;
  // A class is no tensor, whatever library it is of.
  if (way == &kRegisteredWay && (row == nullptr || PyType_Check(door.object) != 0)) {
    raise_no_array(door.object);
  }
  Conditions found;
  if (row != nullptr) {
    found = conditions_by(*row, door.object);
    if (row->read != nullptr) {
      door.held = checked(PyObject_CallOneArg(row->read, door.object));
      door.readable = door.held.get();
      way = door.readable == door.object ? way : way_into(door.readable);
    }
  }
  if (way == nullptr || way->take == nullptr) {
    raise_no_array(door.object);
  }
  way->take(door);
  door.source.traits.conditions |= found;
}

const Way kRegisteredWay{"its library", describe_by_registry, give_taken, prepare_by_dlpack,
                         nullptr};

}  // namespace dlbridge::python
