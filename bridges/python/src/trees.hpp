#pragma once

#include <functional>

#include "python.hpp"

namespace dlbridge::python {

/// A tree is a dict, list, tuple, named tuple or dataclass, or what optree or torch's pytree know,
/// in any depth. Its leaves are what is none of these; a leaf that speaks the exchange table,
/// __dlpack__ or an array interface is a tensor.

/// A new tree of the same structure with `convert(leaf)` for each tensor, and every other leaf
/// itself. Null, without an error, where `x` is no tree. Throws PythonError: what `convert` raised,
/// with a note of the place; a TypeError for a tree that has leaves but no tensor.
[[nodiscard]] Ref map_tree(PyObject* x, const std::function<Ref(PyObject*)>& convert);

/// dlbridge._core.is_tensor(x): whether x speaks one of the protocols, buffers and NumPy's scalars
/// included, so that it is no tree.
PyObject* is_tensor_in_python(PyObject* module, PyObject* x);

/// dlbridge._core.map_tree(tree, convert): the same for Python; None where `tree` is none.
PyObject* map_tree_in_python(PyObject* module, PyObject* const* arguments, Py_ssize_t count);

}  // namespace dlbridge::python
