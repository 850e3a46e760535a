#pragma once

// What every file of the module needs: the kit for Python's C API, Python's face of plans and
// refusals, and C++'s exceptions as Python's errors.

#include <Python.h>

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/numpy.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/python_text.hpp"

namespace dlbridge::python {

using namespace cpython;  // references, errors and texts, as if they were the module's own

/// An attribute of one of the package's Python modules, imported when first asked for and kept.
class PackageAttribute {
 public:
  constexpr PackageAttribute(const char* module, const char* name) : module_(module), name_(name) {}
  /// Borrowed.
  [[nodiscard]] PyObject* get();

 private:
  const char* module_;
  const char* name_;
  PyObject* object_ = nullptr;
};

/// Python's buffer, released at its end. Releasing one that was never filled does nothing.
struct Buffer : Py_buffer {
  Buffer() : Py_buffer{} {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { PyBuffer_Release(this); }

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(buf), static_cast<std::size_t>(len)};
  }
};

/// A type of which the module alone makes objects.
inline PyTypeObject type_of_ours(const char* name, std::size_t size, destructor deallocate) {
  PyTypeObject type{};
  Py_SET_REFCNT(&type, 1);
  type.tp_name = name;
  type.tp_basicsize = static_cast<Py_ssize_t>(size);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  type.tp_dealloc = deallocate;
  return type;
}

Ref integer_tuple(std::span<const std::int64_t> numbers);

/// The integers of a tuple.
std::vector<std::int64_t> sizes_in(PyObject* tuple);

/// The sizes of the dimensions.
inline Ref shape_tuple(const DLTensor& tensor) {
  return integer_tuple({tensor.shape, static_cast<std::size_t>(tensor.ndim)});
}

/// The Python Plan of a decision, with notes of the target's own.
Ref plan_object(const Plan& plan, const Source& source, const Capabilities& target,
                const Policy& policy, const Request& request,
                const std::vector<std::string>& notes = {});

/// That of a tensor that no plan was made for, since it could not be read at all.
Ref plan_object(const ConversionRefused& refused);

/// Sets dlbridge.ConversionRefused with its plan, and throws PythonError.
[[noreturn]] void raise_refused(const Plan& plan, const Source& source, const Capabilities& target,
                                const Policy& policy, const Request& request, Dialect dialect);

/// Sets Python's error for the C++ exception that is being handled.
void translate_exception() noexcept;

/// Runs `action`, which gives a reference, for Python: whatever it throws becomes Python's error.
template <typename Action>
PyObject* guarded(Action&& action) noexcept {
  try {
    if constexpr (std::is_same_v<std::invoke_result_t<Action>, Ref>) {
      return action().release();
    } else {
      return action();
    }
  } catch (...) {
    translate_exception();
    return nullptr;
  }
}

/// The same of one that gives nothing: whether it threw nothing.
template <typename Action>
bool succeeds(Action&& action) noexcept {
  try {
    action();
    return true;
  } catch (...) {
    translate_exception();
    return false;
  }
}

}  // namespace dlbridge::python
