#include "torch/torch_road.hpp"

#include <algorithm>
#include <array>

#include "dlbridge/python_lease.hpp"
#include "module_functions.hpp"
#include "torch/portable_torch.hpp"
#include "types/capsule.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute load_companion("dlbridge._torch", "load_companion");
PackageAttribute count_in_python("dlbridge._torch", "count_write");

const TorchRoad* linked = nullptr;

// The road in a companion's capsule; null for a companion of another build of this library, which
// would misread our classes.
const TorchRoad* road_in(PyObject* capsule) {
  const auto* companion = static_cast<const Companion*>(
      checked_pointer(PyCapsule_GetPointer(capsule, kCompanionCapsule)));
  return companion->interface == Companion::kInterface ? companion->open({run_with_gil, free_large})
                                                       : nullptr;
}

// The companion for the torch that is running, or null, without an error, where there is none.
const TorchRoad* linked_road() {
  if (linked == nullptr) {
    const Ref capsule = checked(PyObject_CallNoArgs(load_companion.get()));
    if (capsule.get() != Py_None) {
      linked = road_in(capsule.get());
    }
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

bool same_tensor(const DLTensor& a, const DLTensor& b) {
  return a.data == b.data && a.ndim == b.ndim && DType(a.dtype) == DType(b.dtype) &&
         Device(a.device) == Device(b.device) && std::equal(a.shape, a.shape + a.ndim, b.shape) &&
         std::equal(a.strides, a.strides + a.ndim, b.strides);
}

bool describes_as(const TorchRoad& road, const TorchRoad& other, PyObject* tensor) {
  Source described;
  Source expected;
  describe_by_road(&road, tensor, described);
  describe_by_road(&other, tensor, expected);
  return described.traits.conditions == expected.traits.conditions &&
         same_tensor(described.tensor, expected.tensor);
}

bool delivers(const TorchRoad& road) {
  constexpr std::array<std::int64_t, 2> kShape = {2, 3};
  ManagedTensor tensor = ManagedTensor::allocate(DType(kDLFloat, 32, 1), kShape);
  const ManagedTensor kept = tensor.share();
  const Ref made = checked(road.deliver(tensor.release()));
  Source described;
  describe_by_road(&road, made.get(), described);
  return same_tensor(described.tensor, kept.tensor());
}

const TorchRoad* chosen_road() {
  if (road_in_use == nullptr) {
    const TorchRoad* road = linked_road();
    road_in_use = road != nullptr ? road : portable_or_error();
  }
  return road_in_use;
}

}  // namespace

const TorchRoad* road_in_use = nullptr;

const TorchRoad* first_road() noexcept {
  try {
    return chosen_road();
  } catch (...) {
    translate_exception();
    return nullptr;
  }
}

void describe_by_road(const TorchRoad* road, PyObject* tensor, Source& source) {
  if (road == nullptr || !road->describe(tensor, source)) {
    throw PythonError();
  }
}

Ref count_write(PyObject* tensor) {
  const TorchRoad* road = torch_road();
  Ref counted(road == nullptr ? nullptr : road->count_write(tensor));
  check_error();
  return counted ? std::move(counted) : checked(PyObject_CallOneArg(count_in_python.get(), tensor));
}

Ref companion_agrees(ArgumentTuple arguments) {
  PyObject* capsule = nullptr;
  PyObject* tensors = nullptr;
  arguments.read("OO!:companion_agrees", &capsule, &PyTuple_Type, &tensors);
  const TorchRoad* road = road_in(capsule);
  bool agrees = road != nullptr && delivers(*road);
  for (Py_ssize_t i = 0; agrees && i < PyTuple_GET_SIZE(tensors); ++i) {
    agrees = describes_as(*road, *portable_or_error(), PyTuple_GET_ITEM(tensors, i));
  }
  return Ref(PyBool_FromLong(agrees ? 1 : 0));
}

Ref choose_torch_road(ArgumentTuple arguments) {
  const char* name = nullptr;
  arguments.read("|s:torch_road", &name);
  if (name != nullptr) {
    const std::string_view wanted(name);
    if (wanted == "portable") {
      road_in_use = portable_or_error();
    } else if (wanted == "linked") {
      const TorchRoad* road = linked_road();
      if (road == nullptr) {
        raise(PyExc_RuntimeError, "there is no companion extension for this torch");
      }
      road_in_use = road;
    } else {
      raise(PyExc_ValueError, "the roads to torch are \"linked\" and \"portable\"");
    }
  }
  const auto road = chosen_road()->name();
  return checked(PyUnicode_FromStringAndSize(road.data(), static_cast<Py_ssize_t>(road.size())));
}

}  // namespace dlbridge::python
