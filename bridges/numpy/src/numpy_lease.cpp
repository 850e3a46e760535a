#include "dlbridge/numpy.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL dlbridge_numpy_api
#define NO_IMPORT_ARRAY
#include <numpy/arrayobject.h>

#include <string_view>

#include "dlbridge/python_lease.hpp"
#include "dlbridge/python_reference.hpp"

namespace dlbridge {
namespace {

using namespace cpython;

// What lies below the array, if it can be closed or moved under it: arrays made of a buffer
// (numpy.memmap, numpy.ndarray(buffer=...)) hold its owner, but no export of the buffer
// (NumPy 2.4).
PyObject* loose_owner(PyObject* array) noexcept {
  PyObject* base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(array));
  while (base != nullptr && PyArray_Check(base)) {
    base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(base));
  }
  for (PyTypeObject* type = base == nullptr ? nullptr : Py_TYPE(base); type != nullptr;
       type = type->tp_base) {
    const std::string_view name = type->tp_name;
    if (name == "mmap.mmap" || name == "bytearray" || name == "array.array") {
      return base;
    }
  }
  return nullptr;
}

// Whether an exact array lies in memory of NumPy's own, and little of it: who made it cannot see
// when it ends, and may find it referred to for a while longer.
bool is_small_and_plain(PyObject* object, const DLTensor& tensor) {
  constexpr std::int64_t kSmallBits = std::int64_t{64} << 13;  // 64 KiB
  PyObject* base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(object));
  if (base != nullptr) [[unlikely]] {
    auto* whole = reinterpret_cast<PyArrayObject*>(base);
    return PyArray_CheckExact(base) && PyArray_BASE(whole) == nullptr &&
           8 * PyArray_NBYTES(whole) <= kSmallBits;
  }
  std::int64_t bits = tensor.dtype.bits;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    bits *= tensor.shape[i];
  }
  return bits <= kSmallBits;
}

}  // namespace

// What keeps the array's memory where it is. While a memoryview exists, its owner refuses to close,
// grow or shrink.
Lease NumPy::lease(PyObject* array, const DLTensor& tensor) {
  if (PyArray_CheckExact(array) && is_small_and_plain(array, tensor)) [[likely]] {
    return patient_lease(Py_NewRef(array));
  }
  PyObject* owner = loose_owner(array);
  if (owner == nullptr) {
    return python_lease(Py_NewRef(array));
  }
  const Ref exported = checked(PyMemoryView_FromObject(owner));
  return python_lease(checked(PyTuple_Pack(2, array, exported.get())).release());
}

}  // namespace dlbridge
