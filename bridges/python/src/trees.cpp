#include "trees.hpp"

#include <string>
#include <vector>

#include "generic.hpp"

namespace dlbridge::python {
namespace {

// For containers that are not Python's plain ones: their parts, and how they are put together.
PackageAttribute parts_of("dlbridge._containers", "parts_of");

bool is_plain_leaf(PyObject* x) {
  PyTypeObject* type = Py_TYPE(x);
  return x == Py_None || type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type ||
         type == &PyBool_Type || type == &PyBytes_Type || PyType_Check(x) != 0;
}

bool is_tensor(PyObject* x) {
  switch (kind_of(x)) {
    case SourceKind::kNothing:
    case SourceKind::kBuffer:
    case SourceKind::kNumPyScalar:
      return false;
    default:
      return true;
  }
}

class Mapping {
 public:
  explicit Mapping(const std::function<Ref(PyObject*)>& convert) : convert_(convert) {}

  // Null where `x` is no tree.
  Ref tree(PyObject* x) {
    if (PyDict_CheckExact(x)) {
      return nested([&] { return of_dict(x); });
    }
    if (PyList_CheckExact(x)) {
      return nested([&] { return of_list(x); });
    }
    if (PyTuple_CheckExact(x)) {
      return nested([&] { return of_tuple(x); });
    }
    if (is_plain_leaf(x) || is_tensor(x)) {
      return {};
    }
    return nested([&] { return of_container(x); });
  }

  [[nodiscard]] bool without_tensors() const { return leaves_ != 0 && tensors_ == 0; }

  // Where the leaf is that raised, as one would write it: x["layer"][3].
  [[nodiscard]] std::string place() const {
    std::string text = "x";
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
      text += *step;
    }
    return text;
  }

 private:
  template <typename Action>
  static Ref nested(Action&& action) {
    if (Py_EnterRecursiveCall(" in a tree of tensors") != 0) {
      throw PythonError();
    }
    try {
      Ref result = action();
      Py_LeaveRecursiveCall();
      return result;
    } catch (...) {
      Py_LeaveRecursiveCall();
      throw;
    }
  }

  // A part of a container; `step` says where it is, if it has to be said.
  template <typename Step>
  Ref part(PyObject* x, Step&& step) {
    try {
      if (Ref subtree = tree(x)) {
        return subtree;
      }
      ++leaves_;
      if (is_plain_leaf(x) || !is_tensor(x)) {
        return Ref::borrow(x);
      }
      ++tensors_;
      return convert_(x);
    } catch (const PythonError&) {
      steps_.push_back(step());
      throw;
    } catch (...) {
      translate_exception();
      steps_.push_back(step());
      throw PythonError();
    }
  }

  static std::string index(Py_ssize_t i) { return "[" + std::to_string(i) + "]"; }
  static std::string key(PyObject* name) {
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    const Ref shown(PyObject_Repr(name));
    const char* text = shown ? PyUnicode_AsUTF8(shown.get()) : nullptr;
    std::string step = "[" + std::string(text == nullptr ? "..." : text) + "]";
    PyErr_Restore(type, value, traceback);
    return step;
  }

  // Into a copy, whose keys stay: nothing else sees it while a conversion runs Python.
  Ref of_dict(PyObject* x) {
    Ref copy = checked(PyDict_Copy(x));
    PyObject* name = nullptr;
    PyObject* value = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(copy.get(), &position, &name, &value) != 0) {
      const Ref converted = part(value, [&] { return key(name); });
      if (converted.get() != value) {
        checked(PyDict_SetItem(copy.get(), name, converted.get()));
      }
    }
    return copy;
  }

  Ref of_list(PyObject* x) {
    Ref copy = checked(PyList_GetSlice(x, 0, PyList_GET_SIZE(x)));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(copy.get()); ++i) {
      Ref converted = part(PyList_GET_ITEM(copy.get(), i), [&] { return index(i); });
      checked(PyList_SetItem(copy.get(), i, converted.release()));
    }
    return copy;
  }

  Ref of_tuple(PyObject* x) {
    Ref made = checked(PyTuple_New(PyTuple_GET_SIZE(x)));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(x); ++i) {
      Ref converted = part(PyTuple_GET_ITEM(x, i), [&] { return index(i); });
      PyTuple_SET_ITEM(made.get(), i, converted.release());
    }
    return made;
  }

  Ref of_container(PyObject* x) {
    const Ref found = checked(PyObject_CallOneArg(parts_of.get(), x));
    if (found.get() == Py_None) {
      return {};
    }
    PyObject* parts = PyTuple_GetItem(found.get(), 0);
    PyObject* places = PyTuple_GetItem(found.get(), 1);
    PyObject* put_together = PyTuple_GetItem(found.get(), 2);
    Ref converted = checked(PyTuple_New(PyTuple_Size(parts)));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); ++i) {
      Ref each = part(PyTuple_GET_ITEM(parts, i), [&] {
        const char* text = PyUnicode_AsUTF8(PyTuple_GetItem(places, i));
        return std::string(text == nullptr ? "" : text);
      });
      PyTuple_SET_ITEM(converted.get(), i, each.release());
    }
    return checked(PyObject_CallOneArg(put_together, converted.get()));
  }

  const std::function<Ref(PyObject*)>& convert_;
  std::size_t leaves_ = 0;
  std::size_t tensors_ = 0;
  std::vector<std::string> steps_;  // innermost first
};

// Adds the place to the error that is on its way (Python 3.11 and later show it).
void add_place(const std::string& place) {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (value != nullptr && PyObject_HasAttrString(value, "add_note") != 0) {
    const Ref noted(PyObject_CallMethod(value, "add_note", "s", ("at " + place).c_str()));
  }
  PyErr_Restore(type, value, traceback);  // in place of what may have failed meanwhile
}

}  // namespace

Ref map_tree(PyObject* x, const std::function<Ref(PyObject*)>& convert) {
  Mapping mapping(convert);
  Ref result;
  try {
    result = mapping.tree(x);
  } catch (const PythonError&) {
    if (PyErr_ExceptionMatches(PyExc_RecursionError) == 0) {
      add_place(mapping.place());
    }
    throw;
  }
  if (result && mapping.without_tensors()) {
    raise(PyExc_TypeError, std::string("expected an array or tensor, or a tree of them, and there "
                                       "is none in this ") +
                               Py_TYPE(x)->tp_name +
                               "; numpy.asarray(x) makes an array of numbers");
  }
  return result;
}

PyObject* is_tensor_in_python(PyObject* /*module*/, PyObject* x) {
  return guarded([&] { return PyBool_FromLong(kind_of(x) != SourceKind::kNothing ? 1 : 0); });
}

PyObject* map_tree_in_python(PyObject* /*module*/, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&] {
    if (count != 2) {
      raise(PyExc_TypeError, "map_tree() takes a tree and a function");
    }
    Ref mapped = map_tree(arguments[0], [&](PyObject* leaf) {
      return checked(PyObject_CallOneArg(arguments[1], leaf));
    });
    return mapped ? mapped.release() : Py_NewRef(Py_None);
  });
}

}  // namespace dlbridge::python
