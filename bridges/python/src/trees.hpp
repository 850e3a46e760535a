#pragma once

#include <functional>

#include "errors.hpp"

namespace dlbridge::python {

/// A tree is a dict, list or tuple, or another container that dlbridge/_containers.py knows, in any
/// depth. Its leaves are what is none of these. A leaf that has a door is a tensor, but for bytes
/// and what NumPy's scalars of texts, dates and structs are.

/// A new tree of the same structure with `convert(leaf)` for each tensor, and every other leaf
/// itself. What occurs twice, a tensor or a container, is made once. Null, without an error, where
/// `x` is no tree. Throws PythonError: what `convert` raised, with a note of the place; a TypeError
/// for a tree that has leaves but no tensor.
[[nodiscard]] Ref map_tree(PyObject* x, const std::function<Ref(PyObject*)>& convert);

/// The tree with `change(leaf)` for every leaf, tensors and others; a part in which nothing changes
/// stays the same object.
[[nodiscard]] Ref map_leaves(PyObject* x, const std::function<Ref(PyObject*)>& change);

/// Whether the leaf is an array or a tensor of any library: buffers, capsules and NumPy's scalars
/// are not.
[[nodiscard]] bool is_array(PyObject* x);

/// Functions of the module: see _core.pyi.
Ref is_tensor_in_python(PyObject* x);
Ref is_array_in_python(PyObject* x);
Ref map_tree_in_python(PyObject* const* arguments, Py_ssize_t count);
Ref map_leaves_in_python(PyObject* const* arguments, Py_ssize_t count);

}  // namespace dlbridge::python
