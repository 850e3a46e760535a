#include "portable_torch.hpp"

#include "capsule.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/torch_library.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute describe_tensor("dlbridge._torch", "describe");
PackageAttribute hold_tensor("dlbridge._torch", "hold");
PackageAttribute prepare_tensor("dlbridge._torch", "prepare");
PackageAttribute deliver_tensor("dlbridge._torch", "deliver");
PackageAttribute takes_versioned("dlbridge._torch", "TAKES_VERSIONED");
PackageAttribute known_dtypes("dlbridge._torch", "DTYPES");

long long integer_in(PyObject* tuple, Py_ssize_t index) {
  const long long number = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, index));
  if (number == -1 && PyErr_Occurred() != nullptr) {
    throw PythonError();
  }
  return number;
}

// Copies a tuple of sizes into the source's room.
std::int64_t* integers_in(PyObject* tuple, std::int64_t* room) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    room[i] = integer_in(tuple, i);
  }
  return room;
}

// What describe() in _torch.py returns; the order is written there too.
enum Position : std::uint8_t {
  kConditions,
  kData,
  kShape,
  kStrides,
  kType,
  kDevice,
  kDetail,
  kFix,
};

void fill(PyObject* described, Source& source) {
  source.traits.library = &torch_detail::kTorch;
  source.traits.copies_to_host = true;
  PyObject* conditions = PyTuple_GET_ITEM(described, kConditions);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(conditions); ++i) {
    source.traits.conditions.add(static_cast<Condition>(integer_in(conditions, i)));
  }
  PyObject* shape = PyTuple_GET_ITEM(described, kShape);
  PyObject* strides = PyTuple_GET_ITEM(described, kStrides);
  PyObject* type = PyTuple_GET_ITEM(described, kType);
  PyObject* device = PyTuple_GET_ITEM(described, kDevice);
  if (PyTuple_GET_SIZE(shape) > kMaxDimensions) {
    source.tensor.ndim = static_cast<std::int32_t>(PyTuple_GET_SIZE(shape));
    source.traits.conditions.add(Condition::kTooManyDimensions);
    return;
  }
  source.tensor.data = reinterpret_cast<void*>(integer_in(described, kData));
  source.tensor.ndim = static_cast<std::int32_t>(PyTuple_GET_SIZE(shape));
  source.tensor.shape = integers_in(shape, source.room.data());
  source.tensor.strides = integers_in(strides, source.room.data() + kMaxDimensions);
  source.tensor.dtype =
      DType(static_cast<int>(integer_in(type, 0)), static_cast<int>(integer_in(type, 1)),
            static_cast<int>(integer_in(type, 2)))
          .dl();
  source.tensor.device = Device(static_cast<std::int32_t>(integer_in(device, 0)),
                                static_cast<std::int32_t>(integer_in(device, 1)))
                             .dl();
  const char* detail = PyUnicode_AsUTF8(PyTuple_GET_ITEM(described, kDetail));
  const char* fix = PyUnicode_AsUTF8(PyTuple_GET_ITEM(described, kFix));
  if (detail == nullptr || fix == nullptr) {
    throw PythonError();
  }
  source.detail = detail;
  source.fix = fix;
}

class PortableRoad final : public TorchRoad {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "portable"; }

  bool describe(PyObject* tensor, Source& source) const noexcept override {
    return guarded([&] {
             const Ref described = checked(PyObject_CallOneArg(describe_tensor.get(), tensor));
             fill(described.get(), source);
             return Py_None;
           }) != nullptr;
  }

  bool lease(PyObject* tensor, Source& source, Lease& lease) const noexcept override {
    return guarded([&] {
             // The storage, guarded, and where the tensor starts in it now.
             const Ref held = checked(PyObject_CallOneArg(hold_tensor.get(), tensor));
             source.tensor.data = reinterpret_cast<void*>(integer_in(held.get(), 1));
             lease = python_lease(Py_NewRef(PyTuple_GET_ITEM(held.get(), 0)));
             return Py_None;
           }) != nullptr;
  }

  PyObject* prepare(PyObject* tensor, const Plan& plan) const noexcept override {
    return guarded([&] {
      return PyObject_CallFunction(prepare_tensor.get(), "OOO", tensor,
                                   plan.has(Step::kDensify) ? Py_True : Py_False,
                                   plan.has(Step::kCopyToHost) ? Py_True : Py_False);
    });
  }

  [[nodiscard]] const Capabilities& capabilities() const noexcept override {
    static const Capabilities kCapabilities = [] {
      Capabilities capabilities{
          .name = "torch",
          .result = "torch.Tensor",
          .devices = DeviceSet::of({kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged, kDLCUDA,
                                    kDLROCM, kDLOneAPI, kDLExtDev}),
          .copies_to_device = true,
          .readonly = ReadOnlySupport::kUnaware,
          .guards_overlap = true,
          .negative_strides = false,
      };
      if (guarded([&] {
            const Ref names = checked(PySequence_Tuple(known_dtypes.get()));
            for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names.get()); ++i) {
              const char* name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(names.get(), i));
              if (name != nullptr && dtype_named(name)) {
                capabilities.dtypes = capabilities.dtypes | DTypeSet::of_name(name);
              }
            }
            return Py_None;
          }) == nullptr) {
        PyErr_Clear();
      }
      return capabilities;
    }();
    return kCapabilities;
  }

  PyObject* deliver(DLManagedTensorVersioned* managed) const noexcept override {
    return guarded([&] {
      ManagedTensor tensor = ManagedTensor::adopt(managed);
      if (tensor.device().host_accessible()) {
        tensor.relabel(Device{});  // torch 2.15 refuses kDLCUDAHost and kDLCUDAManaged
      }
      const Ref capsule = make_capsule(std::move(tensor), takes_versioned.get() == Py_True);
      return PyObject_CallOneArg(deliver_tensor.get(), capsule.get());
    });
  }
};

}  // namespace

const TorchRoad& portable_torch_road() noexcept {
  static const PortableRoad road;
  return road;
}

}  // namespace dlbridge::python
