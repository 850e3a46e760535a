#pragma once

// What every file of the module needs: the kit for Python's C API, Python's face of plans and
// refusals, and C++'s exceptions as Python's errors.

#include <Python.h>

#include <span>

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

Ref integer_tuple(std::span<const std::int64_t> numbers);

/// The sizes of the dimensions.
inline Ref shape_tuple(const DLTensor& tensor) {
  return integer_tuple({tensor.shape, static_cast<std::size_t>(tensor.ndim)});
}

/// The Python Plan of a decision, with notes of the target's own.
Ref plan_object(const Plan& plan, const Source& source, const Capabilities& target,
                const Policy& policy, const Request& request,
                const std::vector<std::string>& notes = {});

/// Sets dlbridge.ConversionRefused with its plan, and throws PythonError.
[[noreturn]] void raise_refused(const Plan& plan, const Source& source, const Capabilities& target,
                                const Policy& policy, const Request& request, Dialect dialect);

/// Sets Python's error for the C++ exception that is being handled.
void translate_exception() noexcept;

/// Runs `action` for a function of the module: whatever it throws becomes Python's error.
template <typename Action>
PyObject* guarded(Action&& action) noexcept {
  try {
    return action();
  } catch (...) {
    translate_exception();
    return nullptr;
  }
}

}  // namespace dlbridge::python
