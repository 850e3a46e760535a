// Objects of libraries without a bridge: what their row in the registry says of them comes first.

#include "doors/array_method_door.hpp"
#include "doors/dlpack_door.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

[[noreturn]] void raise_no_array(PyObject* object) {
  raise(PyExc_TypeError, std::string("expected an array or tensor, not ") +
                             Py_TYPE(object)->tp_name +
                             " (it has none of the exchange table, __dlpack__, the array "
                             "interfaces, the buffer protocol, Arrow's C interface and "
                             "__array__)");
}

// What an object's own library refused, said with what its row knows of it. Throws PythonError.
[[noreturn]] void tell_again(const LibraryRow& row, PyObject* object) {
  throw_if_not_of_object();
  KeepError raised;
  raised.normalise();
  const Ref told(PyObject_CallFunctionObjArgs(row.refusal.get(), object, raised.value(), nullptr));
  if (told && PyExceptionInstance_Check(told.get())) {
    PyObject* traceback = raised.traceback();
    PyException_SetTraceback(raised.value(), traceback == nullptr ? Py_None : traceback);
    PyException_SetCause(told.get(), Py_NewRef(raised.value()));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(told.get())), told.get());
    raised.drop();
  }
  throw PythonError();
}

}  // namespace

void take_by_bridge(Door& door) {
  door.way->describe(door);
  door.source.traits.library = &*door.library;
  // The bridge's own words are for its own objects, and NumPy's for what it makes an array of too.
  if (door.way == &kNumPyWay && type_has(Py_TYPE(door.object), "__array__")) {
    advise_by_array(door.source);
  } else {
    door.source.fix = {};
  }
}

void take_by_next_way(Door& door) {
  if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
    throw PythonError();
  }
  const Way* next = nullptr;
  {
    const KeepError missing;
    next = next_way(door.way, Py_TYPE(door.readable));
  }
  if (next == nullptr) {
    throw PythonError();
  }
  PyErr_Clear();
  door.way = next;
  next->take(door);
}

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
    found.add_if(row->immutable, Condition::kReadOnly);
    if (row->read) {
      door.held = checked(PyObject_CallOneArg(row->read.get(), door.object));
      door.readable = door.held.get();
      way = door.readable == door.object ? way : way_into(door.readable);
    }
  }
  if (way == nullptr || way->take == nullptr) {
    raise_no_array(door.object);
  }
  door.way = way;
  try {
    way->take(door);
  } catch (const PythonError&) {
    if (row == nullptr || !row->refusal) {
      throw;
    }
    tell_again(*row, door.object);
  }
  door.source.traits.conditions |= found;
  constexpr Conditions kNoNumbers{Condition::kInexpressibleDType, Condition::kNulls};
  if (row != nullptr && row->fix_for && door.source.traits.conditions.meets(kNoNumbers)) {
    const Ref call(PyObject_CallOneArg(row->fix_for.get(), door.object));
    forget_error();  // without it the refusal is the same, and names no call
    if (call && PyUnicode_Check(call.get())) {
      door.source.fix = text_of(call.get());
    }
  }
}

const Way kRegisteredWay{describe_by_registry, give_taken, prepare_by_dlpack, nullptr};

}  // namespace dlbridge::python
