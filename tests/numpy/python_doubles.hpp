// Python objects for the tests: made by an expression, owned by a C++ value.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "dlbridge/convert.hpp"
#include "dlbridge/numpy.hpp"
#include "dlbridge/python_lease.hpp"
#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge::doubles {

// One reference.
class Ref {
 public:
  explicit Ref(PyObject* owned) noexcept : object_(owned) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }

  [[nodiscard]] PyObject* get() const { return object_; }
  [[nodiscard]] PyObject* take() { return std::exchange(object_, nullptr); }
  [[nodiscard]] Py_ssize_t references() const { return Py_REFCNT(object_); }

 private:
  PyObject* object_;
};

// The names that expressions see: np, ml_dtypes where it is installed, and what run() defined.
[[nodiscard]] inline PyObject* names() {
  static PyObject* dict = [] {
    PyObject* made = PyDict_New();
    PyDict_SetItemString(made, "__builtins__", PyEval_GetBuiltins());
    PyObject* done = PyRun_String(
        "import numpy as np\n"
        "try:\n"
        "    import ml_dtypes\n"
        "except ImportError:\n"
        "    ml_dtypes = None\n",
        Py_file_input, made, made);
    Py_XDECREF(done);
    return made;
  }();
  return dict;
}

[[nodiscard]] inline Ref value_of(const std::string& expression) {
  PyObject* value = PyRun_String(expression.c_str(), Py_eval_input, names(), names());
  if (value == nullptr) {
    PyErr_Print();
    throw std::runtime_error("Python failed on: " + expression);
  }
  return Ref(value);
}

// A name that expressions see while this lives.
class Named {
 public:
  Named(const char* name, const Ref& object) : name_(name) {
    PyDict_SetItemString(names(), name, object.get());
  }
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;
  ~Named() { PyDict_DelItemString(names(), name_); }

 private:
  const char* name_;
};

// The text of an expression with x for the object.
[[nodiscard]] inline std::string text_of(const Ref& x, const std::string& expression) {
  const Named named("x", x);
  const Ref text = value_of("str((" + expression + "))");
  return PyUnicode_AsUTF8(text.get());
}

// Deleters of Python objects may have been put off by other threads.
class WithPython : public ::testing::Test {
 protected:
  void TearDown() override {
    drain_releases();
    EXPECT_EQ(PyErr_Occurred(), nullptr);
  }
};

}  // namespace dlbridge::doubles
