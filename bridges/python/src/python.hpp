#pragma once

// What every file of the module needs of Python: owned references, and errors as exceptions.

#include <Python.h>

#include <string>
#include <utility>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/numpy.hpp"
#include "dlbridge/plan.hpp"

namespace dlbridge::python {

/// An owned reference.
class Ref {
 public:
  Ref() = default;
  /// Takes the reference over; null stays null.
  explicit Ref(PyObject* owned) noexcept : object_(owned) {}
  static Ref borrow(PyObject* object) noexcept { return Ref(Py_XNewRef(object)); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }

  [[nodiscard]] PyObject* get() const noexcept { return object_; }
  [[nodiscard]] PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

/// The new reference of a call into Python, or PythonError.
inline Ref checked(PyObject* owned) {
  if (owned == nullptr) {
    throw PythonError();
  }
  return Ref(owned);
}

inline void checked(int status) {
  if (status < 0) {
    throw PythonError();
  }
}

[[noreturn]] void raise(PyObject* type, const std::string& text);

/// Forgets an error, if there is one, that says no more than that something is not there or not of
/// the wanted kind. Want of memory and what is no Exception (an interrupt) say nothing of the
/// object: they are thrown as PythonError.
void forget_error();

/// The item of a dictionary under a text; null, without an error, where there is none. (CPython's
/// PyDict_GetItemString forgets every error, want of memory too.)
Ref item_of(PyObject* dictionary, const char* name);

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

Ref text_tuple(const std::vector<std::string>& texts);

/// The sizes of the dimensions.
Ref shape_tuple(const DLTensor& tensor);

/// The Python Plan of a decision.
Ref plan_object(const Plan& plan, const Source& source, const Capabilities& target,
                const Policy& policy, const Request& request);

/// Sets dlbridge.ConversionRefused with its plan, and throws PythonError.
[[noreturn]] void raise_refused(const Plan& plan, const Source& source, const Capabilities& target,
                                const Policy& policy, const Request& request);

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
