#pragma once

// Functions of the module as C++ has them: they take what Python gives, give a Ref, and throw.

#include <type_traits>

#include "errors.hpp"

namespace dlbridge::python {

/// The arguments of a METH_VARARGS function.
class ArgumentTuple {
 public:
  explicit ArgumentTuple(PyObject* tuple) noexcept : tuple_(tuple) {}
  /// As PyArg_ParseTuple() does; throws PythonError where they are others.
  template <typename... Values>
  void read(const char* format, Values... values) const {
    if (PyArg_ParseTuple(tuple_, format, values...) == 0) {
      throw PythonError();
    }
  }

 private:
  PyObject* tuple_;
};

/// What Python calls for a function of the module.
template <auto kFunction>
struct Called;
template <typename First, typename... Given, Ref (*kFunction)(First, Given...)>
struct Called<kFunction> {
  template <typename Each>
  using FromPython = std::conditional_t<std::is_same_v<Each, ArgumentTuple>, PyObject*, Each>;
  static PyObject* call(PyObject* /*module*/, FromPython<First> first,
                        FromPython<Given>... given) noexcept {
    return guarded([&] { return kFunction(First(first), Given(given)...); });
  }
};
template <Ref (*kFunction)()>
struct Called<kFunction> {
  static PyObject* call(PyObject* /*module*/, PyObject* /*unused*/) noexcept {
    return guarded(kFunction);
  }
};

/// The same for the module's table.
template <auto kFunction>
PyCFunction called() {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&Called<kFunction>::call));
}

}  // namespace dlbridge::python
