#include "numpy_inexpressible.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL dlbridge_numpy_api
#define NO_IMPORT_ARRAY
#include <numpy/arrayobject.h>

#include <array>
#include <string>
#include <utility>

#include "dlbridge/numpy.hpp"
#include "dlbridge/python_text.hpp"

namespace dlbridge::detail {
namespace {

using namespace cpython;

// NumPy 1 gives the numbers of an array of any shape in one row.
constexpr const char* kNumberTexts =
    "np.unique(x, return_inverse=True)[1].reshape(np.shape(x)) (numbers for the texts)";

// What makes numbers that DLPack knows of the kinds that it does not, by NumPy's letter.
constexpr std::array<std::pair<char, const char*>, 8> kFixesByKind = {{
    {'U', kNumberTexts},
    {'S', kNumberTexts},
    {'T', kNumberTexts},
    {'M', "x.astype(\"int64\") (the unit is lost)"},
    {'m', "x.astype(\"int64\") (the unit is lost)"},
    {'f', "x.astype(\"float64\") (its values are rounded)"},
    {'c', "x.astype(\"complex128\") (its values are rounded)"},
    {'O', "x.astype(\"float64\") (if its items are numbers)"},
}};

// The same of the types of others than NumPy, such as ml_dtypes' int4: the first that holds all
// that they hold.
constexpr std::array<std::pair<int, const char*>, 4> kFixesByHolder = {{
    {NPY_UINT8, "x.astype(\"uint8\")"},
    {NPY_INT8, "x.astype(\"int8\")"},
    {NPY_FLOAT32, "x.astype(\"float32\")"},
    {NPY_COMPLEX64, "x.astype(\"complex64\")"},
}};

}  // namespace

void describe_inexpressible(PyObject* object, Source& source) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  PyArray_Descr* descriptor = PyArray_DESCR(array);
  constexpr std::string_view kNoNumbers = "USTOMm";  // texts, objects and dates
  source.traits.no_numbers = kNoNumbers.find(descriptor->kind) != std::string_view::npos ||
                             descriptor->type_num == NPY_VOID;
  source.traits.own_copy_bytes = PyArray_NBYTES(array);
  source.detail = text_of(reinterpret_cast<PyObject*>(descriptor));
  // ml_dtypes gives each int4 or float4 a byte of its own; DLPack packs them.
  const auto named = dtype_named(source.detail);
  const bool padded = descriptor->type_num >= NPY_USERDEF && named && !named->whole_bytes();
  source.traits.conditions.add(padded ? Condition::kPaddedSubByte : Condition::kInexpressibleDType);
  if (source.traits.conditions.has(Condition::kUnit)) {
    return;  // whose fix comes first
  }
  for (const auto& [kind, fix] : kFixesByKind) {
    if (descriptor->kind == kind) {
      source.fix = fix;
      return;
    }
  }
  if (descriptor->type_num >= NPY_USERDEF) {
    for (const auto& [holder, fix] : kFixesByHolder) {
      if (PyArray_CanCastSafely(descriptor->type_num, holder) != 0) {
        source.fix = fix;
        return;
      }
    }
  }
  if (PyDataType_HASFIELDS(descriptor) && PyTuple_Size(PyDataType_NAMES(descriptor)) > 0) {
    source.detail = "structured " + std::string(source.detail);
    const std::string field = text_of(PyTuple_GetItem(PyDataType_NAMES(descriptor), 0));
    source.fix = "x[\"" + field + "\"] (one of its fields)";
  }
}

}  // namespace dlbridge::detail

namespace dlbridge {

using namespace cpython;

PyObject* NumPy::array_of_its_own(PyObject* object, std::int64_t itemsize) {
  Ref array(PyArray_FromAny(object, nullptr, 0, 0, 0, nullptr));
  if (!array) {
    // A RuntimeError where the size of an element is not what the buffer's format says.
    if (PyErr_ExceptionMatches(PyExc_ValueError) == 0 &&
        PyErr_ExceptionMatches(PyExc_TypeError) == 0 &&
        PyErr_ExceptionMatches(PyExc_RuntimeError) == 0) {
      throw PythonError();
    }
    PyErr_Clear();
    return nullptr;
  }
  // What it does not understand it wraps as an object. Whoever says what lies in memory may be
  // wrong: larger structs would be read past its end, and what is no object would be taken for one.
  PyArray_Descr* descriptor = PyArray_DESCR(reinterpret_cast<PyArrayObject*>(array.get()));
  const bool means_something =
      descriptor->type_num != NPY_VOID ||
      (PyDataType_HASFIELDS(descriptor) && PyTuple_GET_SIZE(PyDataType_NAMES(descriptor)) > 0);
  const bool sound = means_something && !dtype_of(reinterpret_cast<PyObject*>(descriptor)) &&
                     PyDataType_ELSIZE(descriptor) == itemsize && !PyDataType_REFCHK(descriptor);
  return sound ? array.release() : nullptr;
}

}  // namespace dlbridge
