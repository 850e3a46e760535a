#pragma once

#include "generic.hpp"

namespace dlbridge::python {

struct ConsumerRow;

/// What a caller asks for, read from a function's arguments.
struct Call {
  Policy policy;
  Request request;
  std::optional<Stream> stream{};  // that the source's memory is ordered on; otherwise as found out
};

/// Reads the arguments that the functions share; null or None where there is none.
[[nodiscard]] Call read_call(PyObject* policy, PyObject* dtype, PyObject* copy, PyObject* device);

/// The three conversions, for the module's functions and for one another. New references.
[[nodiscard]] Ref to_numpy_object(PyObject* x, PyObject* policy, PyObject* dtype, PyObject* copy);
[[nodiscard]] Ref to_numpy_object(PyObject* x, const Call& call);
[[nodiscard]] Ref to_torch_object(PyObject* x, const Call& call);
[[nodiscard]] Ref to_managed_object(PyObject* x, const Call& call);

/// A new array over the tensor's memory.
[[nodiscard]] Ref array_over(ManagedTensor tensor);

/// The same without a Python object around it.
[[nodiscard]] ManagedTensor to_managed_tensor(PyObject* x, const Call& call);

/// A capsule under the call's policy.
[[nodiscard]] Ref to_capsule(PyObject* x, const Call& call, bool versioned);

/// What a consumer without a compiled bridge is handed: a tuple of a ManagedTensor that it can
/// take, whether that is a view, and whether the caller allows copies. None where `x` stays itself.
[[nodiscard]] Ref to_consumer(PyObject* x, const ConsumerRow& row, const Call& call);

/// The Plan of any of them, carried out by nobody. `target`: "numpy", "torch", "dlbridge", or a
/// consumer's capsule.
[[nodiscard]] Ref explain_object(PyObject* x, PyObject* target, const Call& call);

}  // namespace dlbridge::python
