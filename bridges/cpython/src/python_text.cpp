#include "dlbridge/python_text.hpp"

namespace dlbridge::cpython {
namespace {

std::string bytes_of(const Ref& text) {
  return checked_pointer(PyUnicode_AsUTF8(text.get()));
}

}  // namespace

std::string text_of(PyObject* object) {
  return bytes_of(checked(PyObject_Str(object)));
}

std::string shown(PyObject* object) {
  return bytes_of(checked(PyObject_Repr(object)));
}

bool is_text(PyObject* object, const char* text) noexcept {
  return PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, text) == 0;
}

std::string module_of(PyTypeObject* type) {
  const Ref name(PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__module__"));
  forget_error();
  const char* text = name && PyUnicode_Check(name.get()) ? PyUnicode_AsUTF8(name.get()) : nullptr;
  forget_error();
  return text == nullptr ? "" : text;
}

PyObject* Name::made() {
  return object_ = checked(PyUnicode_InternFromString(text_)).release();
}

Ref text_object(const std::string& text) {
  return checked(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
}

Ref text_tuple(const std::vector<std::string>& texts) {
  Ref tuple = checked(PyTuple_New(static_cast<Py_ssize_t>(texts.size())));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), text_object(texts[i]).release());
  }
  return tuple;
}

Ref text_or_none(const std::string& text) {
  return text.empty() ? Ref::borrow(Py_None) : text_object(text);
}

Ref item_of(PyObject* dictionary, const char* name) {
  const Ref key = checked(PyUnicode_FromString(name));
  return Ref::borrow(found_in(dictionary, key.get()));
}

}  // namespace dlbridge::cpython
