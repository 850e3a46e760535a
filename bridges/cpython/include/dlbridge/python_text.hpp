#pragma once

// Python's texts as C++'s, and back. All of these throw PythonError.

#include <string>
#include <vector>

#include "dlbridge/python_reference.hpp"

namespace dlbridge::cpython {

/// str(object), and repr(object).
std::string text_of(PyObject* object);
std::string shown(PyObject* object);

/// Raises the TypeError of an object of another type than is wanted.
[[noreturn]] inline void raise_other_type(const std::string& wanted, PyObject* met) {
  raise(PyExc_TypeError, wanted + ", not " + Py_TYPE(met)->tp_name);
}

/// Whether it is that text.
bool is_text(PyObject* object, const char* text) noexcept;

/// The name of the module that the type says it is of; empty where it says none.
std::string module_of(PyTypeObject* type);

/// The text; bytes of another library's that are no UTF-8 are written out.
Ref text_object(const std::string& text);

/// A name that is looked up often: made when first asked for, and kept.
class Name {
 public:
  constexpr explicit Name(const char* text) : text_(text) {}
  /// Borrowed.
  [[nodiscard]] PyObject* get() { return object_ != nullptr ? object_ : made(); }

 private:
  PyObject* made();

  const char* text_;
  PyObject* object_ = nullptr;
};

Ref text_tuple(const std::vector<std::string>& texts);

/// The text, or None for an empty one.
Ref text_or_none(const std::string& text);

/// The item of a dictionary under a text; null, without an error, where there is none. (CPython's
/// PyDict_GetItemString forgets every error, want of memory too.)
Ref item_of(PyObject* dictionary, const char* name);

}  // namespace dlbridge::cpython
