#include "numpy_subclasses.hpp"

#include <string>

#include "dlbridge/numpy.hpp"
#include "dlbridge/python_error.hpp"
#include "dlbridge/python_reference.hpp"
#include "dlbridge/python_text.hpp"

namespace dlbridge::detail {
namespace {

using namespace cpython;

// The masked array's class, if its module was ever loaded: only then can there be one.
bool is_masked(PyObject* array) {
  const Ref name = checked(PyUnicode_FromString("numpy.ma"));
  const Ref module(PyImport_GetModule(name.get()));
  const Ref type(module ? PyObject_GetAttrString(module.get(), "MaskedArray") : nullptr);
  const bool masked = type && PyObject_IsInstance(array, type.get()) == 1;
  forget_error();
  return masked;
}

// Whether the class or the array has it for its own: a record array answers to its fields as well.
bool declares(PyObject* array, const char* name) {
  const Ref of_class(PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(array)), name));
  forget_error();
  PyObject** own = _PyObject_GetDictPtr(array);
  return of_class || (own != nullptr && *own != nullptr && item_of(*own, name));
}

// Astropy's quantities have a unit, those of unyt and yt have units.
bool has_unit(PyObject* array) {
  for (const char* name : {"unit", "units"}) {
    const Ref unit(declares(array, name) ? PyObject_GetAttrString(array, name) : nullptr);
    forget_error();
    if (unit && unit.get() != Py_None) {
      return true;
    }
  }
  return false;
}

}  // namespace

void describe_subclass(PyObject* array, Source& source) {
  if (!NumPy::is_array(array)) {
    raise_other_type("expected a numpy.ndarray", array);
  }
  source.traits.conditions.add_if(is_masked(array), Condition::kMasked);
  if (has_unit(array)) {
    source.traits.conditions.add(Condition::kUnit);
    source.fix = PyObject_HasAttrString(array, "value") != 0
                     ? "x.value (the unit is lost)"
                     : "x.view(np.ndarray) (the unit is lost)";
  }
}

}  // namespace dlbridge::detail
