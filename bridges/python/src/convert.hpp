#pragma once

#include "generic.hpp"

namespace dlbridge::python {

/// What a caller asks for, read from a function's arguments.
struct Call {
  Policy policy;
  Request request;
};

/// Reads the arguments that the functions share; null or None where there is none.
[[nodiscard]] Call read_call(PyObject* policy, PyObject* dtype, PyObject* copy, PyObject* device);

/// The three conversions, for the module's functions and for one another. New references.
[[nodiscard]] Ref to_numpy_object(PyObject* x, PyObject* policy, PyObject* dtype, PyObject* copy);
[[nodiscard]] Ref to_numpy_object(PyObject* x, const Call& call);
[[nodiscard]] Ref to_torch_object(PyObject* x, const Call& call);
[[nodiscard]] Ref to_managed_object(PyObject* x, const Call& call);

/// A capsule under the call's policy.
[[nodiscard]] Ref to_capsule(PyObject* x, const Call& call, bool versioned);

/// A managed tensor, as a Python object, that the named consumer can take.
[[nodiscard]] Ref to_consumer(PyObject* x, const std::string& consumer, const Call& call);

/// The Plan of any of them, carried out by nobody.
[[nodiscard]] Ref explain_object(PyObject* x, const std::string& target, const Call& call);

}  // namespace dlbridge::python
