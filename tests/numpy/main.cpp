// The tests run inside an embedded interpreter, which main holds the GIL of. NumPy is found as
// PYTHONPATH says.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "dlbridge/numpy.hpp"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) {
    return RUN_ALL_TESTS();  // while building, where there may be no NumPy to be found
  }
  Py_InitializeEx(0);
  if (!dlbridge::NumPy::import()) {
    PyErr_Print();
    std::fputs("the embedded interpreter finds no NumPy: is PYTHONPATH set?\n", stderr);
    return 1;
  }
  // Objects of NumPy's that live on may be released while static objects are torn down, so the
  // interpreter is left as it is.
  return RUN_ALL_TESTS();
}
