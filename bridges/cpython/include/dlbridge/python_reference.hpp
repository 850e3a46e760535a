#pragma once

// Owned references to Python objects. Needs nothing but Python.h, as python_error.hpp.

#include <utility>

#include "dlbridge/python_error.hpp"

namespace dlbridge::cpython {

/// An owned reference, or null.
class Ref {
 public:
  Ref() = default;
  /// Takes the reference over; null stays null.
  explicit Ref(PyObject* owned) noexcept : object_(owned) {}
  static Ref borrow(PyObject* object) noexcept { return Ref(Py_XNewRef(object)); }
  Ref(Ref&& other) noexcept : object_(other.release()) {}
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

/// The answer of a call that says yes, no, or that it failed.
inline bool checked_truth(int answer) {
  checked(answer);
  return answer != 0;
}

/// What a dictionary has under a key, borrowed; null, without an error, where it has nothing.
inline PyObject* found_in(PyObject* dictionary, PyObject* key) {
  PyObject* found = PyDict_GetItemWithError(dictionary, key);
  if (found == nullptr) {
    check_error();
  }
  return found;
}

/// What a call gave that gives a pointer: borrowed, a text, what is in a capsule.
template <typename Given>
Given* checked_pointer(Given* given) {
  if (given == nullptr) {
    throw PythonError();
  }
  return given;
}

}  // namespace dlbridge::cpython
