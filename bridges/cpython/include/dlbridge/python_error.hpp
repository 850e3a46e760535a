#pragma once

// Python's errors in C++. Needs nothing but Python.h, so that extensions of others can use it too.

#include <Python.h>

#include <exception>
#include <string>

namespace dlbridge {

/// Thrown where a call into Python failed; the error is set in Python and is the one that counts.
class PythonError : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override { return "a Python error is set"; }
};

/// Keeps an error that is on its way: what is released or deallocated meanwhile can run any code.
/// At the end of the scope it is the one that is set, in place of what may have failed meanwhile.
class KeepError {
 public:
  KeepError() noexcept { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~KeepError() {
    if (!dropped_) {
      PyErr_Restore(type_, value_, traceback_);
    }
  }
  KeepError(const KeepError&) = delete;
  KeepError& operator=(const KeepError&) = delete;

  /// Borrowed, and null where no error was on its way. The value may be what an exception is still
  /// to be made of.
  [[nodiscard]] PyObject* type() const noexcept { return type_; }
  [[nodiscard]] PyObject* value() const noexcept { return value_; }
  [[nodiscard]] PyObject* traceback() const noexcept { return traceback_; }
  /// Makes the exception.
  void normalise() noexcept { PyErr_NormalizeException(&type_, &value_, &traceback_); }
  /// Lets go of it: another error counts.
  void drop() noexcept {
    dropped_ = true;
    Py_XDECREF(type_);
    Py_XDECREF(value_);
    Py_XDECREF(traceback_);
  }

 private:
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
  bool dropped_ = false;
};

namespace cpython {

/// Sets the error and throws it.
[[noreturn]] inline void raise(PyObject* type, const std::string& text) {
  PyErr_SetString(type, text.c_str());
  throw PythonError();
}

/// Throws the error that is set, if there is one: for calls whose result does not say.
inline void check_error() {
  if (PyErr_Occurred() != nullptr) {
    throw PythonError();
  }
}

/// Throws the error that is set, if there is one. An int that the machine has no word for is a
/// wrong value, of the argument that is called so.
inline void check_integer(PyObject* number, const char* argument) {
  if (PyErr_Occurred() != nullptr && PyErr_ExceptionMatches(PyExc_OverflowError) != 0) {
    PyErr_Format(PyExc_ValueError, "%s%s%R is out of range", argument, *argument == 0 ? "" : "=",
                 number);
  }
  check_error();
}

/// The value of an int of Python's. Throws PythonError where it is none, or does not fit.
inline long long integer_of(PyObject* number, const char* argument = "") {
  const long long value = PyLong_AsLongLong(number);
  if (value == -1) {
    check_integer(number, argument);
  }
  return value;
}

/// The same of one that is not negative.
inline unsigned long long size_of(PyObject* number, const char* argument = "") {
  const unsigned long long value = PyLong_AsUnsignedLongLong(number);
  if (value == static_cast<unsigned long long>(-1)) {
    check_integer(number, argument);
  }
  return value;
}

/// Throws the error that is set, if it says nothing of the object that was asked: want of memory,
/// and what is no Exception (an interrupt).
inline void throw_if_not_of_object() {
  if (PyErr_ExceptionMatches(PyExc_MemoryError) != 0 ||
      PyErr_ExceptionMatches(PyExc_Exception) == 0) {
    throw PythonError();
  }
}

/// Forgets an error, if there is one, that says no more than that something is not there or not of
/// the wanted kind. One that says nothing of the object is thrown as PythonError.
inline void forget_error() {
  if (PyErr_Occurred() == nullptr) {
    return;
  }
  throw_if_not_of_object();
  PyErr_Clear();
}

}  // namespace cpython
}  // namespace dlbridge
