#pragma once

#include <Python.h>

#include <optional>

#include "dlbridge/capabilities.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/python_error.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

/// The bridge to NumPy, on its C API: one binary for NumPy 1.26 and 2.x.
///
/// Objects are borrowed references to numpy.ndarray. Every function needs the GIL, and
/// NumPy::import() once before. What fails in Python is thrown as PythonError, with Python's error
/// set.
struct NumPy {
  using Object = PyObject*;

  /// Loads NumPy's C API. False, with Python's error set, when NumPy cannot be imported.
  static bool import() noexcept;

  /// Whether it is an ndarray, of a subclass perhaps.
  static bool is_array(PyObject* object) noexcept;
  /// Whether it is a NumPy scalar such as numpy.float32(3).
  static bool is_scalar(PyObject* object) noexcept;

  /// A new reference to a 0-d array of the scalar's value; throws PythonError.
  static PyObject* array_of_scalar(PyObject* scalar);

  /// A new reference to an array over an object's structs, texts or dates of that many bytes each,
  /// which lie in a buffer or an array interface; null where NumPy finds no such. Throws
  /// PythonError.
  static PyObject* array_of_its_own(PyObject* object, std::int64_t itemsize);

  /// Throws PythonError with a TypeError set where it is no array.
  static void describe(PyObject* array, Source& source);

  /// The common case of describe() at a glance, see PlainProducer: without strides, since they are
  /// those of C order.
  static Glance plain(PyObject* array, DLTensor& tensor) noexcept;
  /// What acquire() holds; throws PythonError.
  static Lease lease(PyObject* array, const DLTensor& tensor);

  /// A view that holds a reference to the array, so that its memory stays: ndarray.resize refuses
  /// while there are references. Of an array over an mmap or the like it holds an export too, so
  /// that close() raises.
  static ManagedTensor acquire(PyObject* array, const Source& source);

  /// A new reference to a copy in C order by NumPy itself, of any type; throws PythonError.
  static PyObject* copy_of(PyObject* array);

  /// Whether the array, to which the caller holds the one reference, owns its memory.
  static bool is_private(PyObject* array) noexcept;

  /// With ml_dtypes' types where the source, or the request, is of a type that NumPy lacks.
  static const Capabilities& capabilities(const Source& source, const Request& request = {});
  /// The same where nothing is asked but of a type of NumPy's own.
  static const Capabilities& own_capabilities() noexcept;

  /// A new reference to an array over the tensor's memory, whose base is a capsule that owns it.
  static PyObject* deliver(ManagedTensor tensor);

  /// The same with a base of the caller's own: steals `base`, also on failure. Returns null with
  /// Python's error set. `tensor` describes what `base` owns.
  static PyObject* array_over(const DLTensor& tensor, bool readonly, PyObject* base) noexcept;

  /// The type of a numpy.dtype that DLPack can carry, or nothing.
  static std::optional<DType> dtype_of(PyObject* descriptor);
  /// A new reference to the numpy.dtype; null where NumPy has none, and,
  /// with Python's error set, on a failure.
  static PyObject* descriptor_of(DType dtype);
  /// A new reference to numpy.dtype(object), or null with Python's error set.
  static PyObject* descriptor_from(PyObject* object);
};

}  // namespace dlbridge
