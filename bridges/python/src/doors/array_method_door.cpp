// What has nothing better than __array__: no array is made before it is decided what becomes of it.

#include "doors/array_method_door.hpp"

#include "doors/dlpack_door.hpp"

namespace dlbridge::python {

void advise_by_array(Source& source) {
  std::string call{std::string_view(source.fix)};
  if (const auto x = call.find('x'); x != std::string::npos) {
    source.fix = call.replace(x, 1, "np.asanyarray(x)");
  }
}

namespace {

PackageAttribute look_at("dlbridge._lazy", "look_at");
PackageAttribute plain_array("dlbridge._lazy", "plain_array");

// What the door holds: the object, an array like the one that it makes or that array itself, and
// whether it is that one and private; None where it was not made yet.
PyObject* held(const Door& door, Py_ssize_t i) {
  return PyTuple_GET_ITEM(door.held.get(), i);
}

struct Made {
  Ref array;
  bool is_private;
};

// A copy is asked for. Some say that they know the keyword and give their own memory all the same.
Made make(PyObject* object, PyObject* like) {
  const Ref method = checked(PyObject_GetAttrString(object, "__array__"));
  const Ref nothing = checked(PyTuple_New(0));
  const Ref keywords = checked(Py_BuildValue("{sO}", "copy", Py_True));
  Ref array(PyObject_Call(method.get(), nothing.get(), keywords.get()));
  const bool copies = static_cast<bool>(array);
  if (!copies) {
    if (!is_about_keyword("copy")) {
      throw PythonError();
    }
    PyErr_Clear();
    array = checked(PyObject_CallNoArgs(method.get()));
  }
  PyObject* plain =
      checked(PyObject_CallFunctionObjArgs(plain_array.get(), object, array.get(), like, nullptr))
          .release();
  array = Ref(plain);
  return {std::move(array), copies && NumPy::is_private(plain)};
}

void describe_like(const Door& door, PyObject* array, Source& source) {
  NumPy::describe(array, source);
  source.traits.library = &*door.library;
  source.traits.conditions.remove(Condition::kFractionalStrides);
  advise_by_array(source);
}

void take_by_array_method(Door& door) {
  const Ref like = checked(PyObject_CallOneArg(look_at.get(), door.readable));
  if (like.get() != Py_None) {
    door.held = checked(PyTuple_Pack(3, door.readable, like.get(), Py_None));
  } else {  // only the array itself can tell
    const Made made = make(door.readable, Py_None);
    door.held = checked(
        PyTuple_Pack(3, door.readable, made.array.get(), made.is_private ? Py_True : Py_False));
  }
  describe_like(door, held(door, 1), door.source);
  door.source.tensor.data = nullptr;
  door.source.tensor.strides = nullptr;
  door.source.byte_strides = nullptr;
  door.source.traits.conditions.remove(Condition::kReadOnly);
  door.source.traits.conditions.add(Condition::kLazy);
  for (auto& row : door.library->fixes) {
    if (row.call.empty()) {
      row = {Condition::kLazy, "np.asarray(x)"};
      break;
    }
  }
}

Made made_for(const Door& door) {
  PyObject* is_private = held(door, 2);
  return is_private == Py_None ? make(door.readable, held(door, 1))
                               : Made{Ref::borrow(held(door, 1)), is_private == Py_True};
}

// Memory that others can reach too is no copy yet: it is marked, and packed once more.
ManagedTensor make_array(Door& door, const Leg& /*leg*/, Source& made) {
  const Made found = made_for(door);
  describe_like(door, found.array.get(), made);
  made.traits.conditions.remove(Condition::kSwappedBytes);  // the next leg's
  made.traits.conditions.add_if(!found.is_private, Condition::kReadOnly);
  return NumPy::acquire(found.array.get(), made);
}

}  // namespace

Ref array_made_for(const Door& door) {
  Made made = made_for(door);
  return made.is_private ? std::move(made.array) : Ref(NumPy::copy_of(made.array.get()));
}

const Way kArrayMethodWay{describe_by_registry, give_taken, make_array, take_by_array_method};

}  // namespace dlbridge::python
