#include "torch/torch_road.hpp"

#include <array>
#include <vector>

#include "dlbridge/python_lease.hpp"
#include "torch/portable_torch.hpp"
#include "types/capsule.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute load_companion("dlbridge._torch", "load_companion");

const TorchRoad* linked = nullptr;
const TorchRoad* in_use = nullptr;

// The companion for the torch that is running, or null, without an error, where there is none.
const TorchRoad* linked_road() {
  if (linked != nullptr) {
    return linked;
  }
  const Ref capsule = checked(PyObject_CallNoArgs(load_companion.get()));
  if (capsule.get() == Py_None) {
    return nullptr;
  }
  const auto* companion =
      static_cast<const Companion*>(PyCapsule_GetPointer(capsule.get(), kCompanionCapsule));
  if (companion == nullptr) {
    throw PythonError();
  }
  // A companion of another build of this library would misread our classes.
  if (companion->interface == Companion::kInterface) {
    linked = companion->open(run_with_gil);
  }
  return linked;
}

const TorchRoad* portable_or_error() {
  const TorchRoad* road = portable_torch_road();
  if (road == nullptr) {
    throw PythonError();
  }
  return road;
}

const TorchRoad* chosen_road() {
  if (in_use == nullptr) {
    const TorchRoad* road = linked_road();
    in_use = road != nullptr ? road : portable_or_error();
  }
  return in_use;
}

}  // namespace

const TorchRoad* torch_road() noexcept {
  if (in_use != nullptr) {
    return in_use;
  }
  try {
    return chosen_road();
  } catch (...) {
    translate_exception();
    return nullptr;
  }
}

PyObject* choose_torch_road(PyObject* /*module*/, PyObject* arguments) noexcept {
  return guarded([&]() -> PyObject* {
    const char* name = nullptr;
    if (PyArg_ParseTuple(arguments, "|s:torch_road", &name) == 0) {
      throw PythonError();
    }
    if (name != nullptr) {
      const std::string_view wanted(name);
      if (wanted == "portable") {
        in_use = portable_or_error();
      } else if (wanted == "linked") {
        const TorchRoad* road = linked_road();
        if (road == nullptr) {
          raise(PyExc_RuntimeError, "there is no companion extension for this torch");
        }
        in_use = road;
      } else {
        raise(PyExc_ValueError, "the roads to torch are \"linked\" and \"portable\"");
      }
    }
    const auto road = chosen_road()->name();
    return PyUnicode_FromStringAndSize(road.data(), static_cast<Py_ssize_t>(road.size()));
  });
}

}  // namespace dlbridge::python
