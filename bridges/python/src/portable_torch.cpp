#include "portable_torch.hpp"

#include <memory>

#include "capsule.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/torch_library.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute describe_tensor("dlbridge._torch", "describe");
PackageAttribute quick_tools("dlbridge._torch", "quick");
PackageAttribute guard_storage("dlbridge._torch", "guard");
PackageAttribute tensor_class("dlbridge._torch", "TENSOR");
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

// An ordinary tensor is described from here, with a few calls into torch; anything else, and a
// torch without an exchange table, by describe() in _torch.py.
class QuickLook {
 public:
  QuickLook() {
    const Ref tools = checked(PyObject_CallNoArgs(quick_tools.get()));
    keys_of_ = Ref::borrow(PyTuple_GetItem(tools.get(), 0));
    ordinary_ = Ref::borrow(PyTuple_GetItem(tools.get(), 1));
    triples_ = Ref::borrow(PyTuple_GetItem(tools.get(), 2));
    forward_ad_ = Ref::borrow(PyTuple_GetItem(tools.get(), 3));
    const Ref capsule(PyObject_GetAttrString(tensor_class.get(), "__dlpack_c_exchange_api__"));
    if (!capsule) {
      PyErr_Clear();
      return;
    }
    const auto* table = static_cast<const DLPackExchangeAPI*>(
        PyCapsule_GetPointer(capsule.get(), "dlpack_exchange_api"));
    if (table != nullptr && table->header.version.major == DLPACK_MAJOR_VERSION) {
      borrow_ = table->dltensor_from_py_object_no_sync;
    }
    PyErr_Clear();
  }

  // False where the tensor is not ordinary; nothing is filled in then.
  bool describe(PyObject* tensor, Source& source) const {
    if (borrow_ == nullptr || !has_ordinary_keys(tensor) || in_forward_mode()) {
      return false;
    }
    const Ref dtype = checked(PyObject_GetAttr(tensor, dtype_name_.get()));
    PyObject* triple = PyDict_GetItem(triples_.get(), dtype.get());
    if (triple == nullptr) {
      return false;
    }
    DLTensor borrowed{};
    if (borrow_(tensor, &borrowed) != 0) {
      PyErr_Clear();  // the slow look says it in a text of ours
      return false;
    }
    if (!has_its_memory(tensor, borrowed)) {
      return false;
    }
    const Ref in_graph = checked(PyObject_GetAttr(tensor, requires_grad_name_.get()));
    source.traits.library = &torch_detail::kTorch;
    source.traits.copies_to_host = true;
    source.traits.conditions.add_if(in_graph.get() == Py_True, Condition::kInGraph);
    source.tensor = borrowed;
    // The table's own type says int8 for torch.int4.
    source.tensor.dtype =
        DType(static_cast<int>(integer_in(triple, 0)), static_cast<int>(integer_in(triple, 1)),
              static_cast<int>(integer_in(triple, 2)))
            .dl();
    return true;
  }

 private:
  [[nodiscard]] bool has_ordinary_keys(PyObject* tensor) const {
    const Ref keys = checked(PyObject_CallOneArg(keys_of_.get(), tensor));
    const Ref number = checked(PyObject_CallMethodNoArgs(keys.get(), raw_repr_name_.get()));
    const int known = PySet_Contains(ordinary_.get(), number.get());
    checked(known);
    return known == 1;
  }

  [[nodiscard]] bool in_forward_mode() const {
    PyObject* level = PyDict_GetItem(forward_ad_.get(), level_name_.get());
    return level == nullptr || PyLong_AsLong(level) >= 0;
  }

  // resize_() of the storage can leave a tensor larger than its memory (torch 2.15).
  [[nodiscard]] bool has_its_memory(PyObject* tensor, const DLTensor& borrowed) const {
    std::int64_t last = 0;
    for (std::int32_t i = 0; i < borrowed.ndim; ++i) {
      if (borrowed.shape[i] == 0) {
        return true;
      }
      last += (borrowed.shape[i] - 1) * borrowed.strides[i];
    }
    if (borrowed.data == nullptr) {
      return false;
    }
    const Ref storage = checked(PyObject_CallMethodNoArgs(tensor, storage_name_.get()));
    const Ref start = checked(PyObject_CallMethodNoArgs(storage.get(), data_ptr_name_.get()));
    const Ref bytes = checked(PyObject_CallMethodNoArgs(storage.get(), nbytes_name_.get()));
    const auto* from = static_cast<const char*>(PyLong_AsVoidPtr(start.get()));
    const long long size = PyLong_AsLongLong(bytes.get());
    if (PyErr_Occurred() != nullptr) {
      throw PythonError();
    }
    const auto offset = static_cast<const char*>(borrowed.data) - from;
    return offset + (last + 1) * DType(borrowed.dtype).itemsize() <= size;
  }

  static Ref name(const char* text) { return checked(PyUnicode_InternFromString(text)); }

  Ref keys_of_;
  Ref ordinary_;    // the raw key sets of ordinary tensors
  Ref triples_;     // DLPack's triple of each torch.dtype
  Ref forward_ad_;  // where torch keeps the level of forward-mode differentiation
  int (*borrow_)(void* object, DLTensor* out) = nullptr;
  Ref dtype_name_ = name("dtype");
  Ref requires_grad_name_ = name("requires_grad");
  Ref raw_repr_name_ = name("raw_repr");
  Ref level_name_ = name("_current_level");
  Ref storage_name_ = name("untyped_storage");
  Ref data_ptr_name_ = name("data_ptr");
  Ref nbytes_name_ = name("nbytes");
};

// Made under the GIL alone, not in a static's initialiser: that would hold a lock of C++ while
// Python lets other threads run. Never destroyed: at exit nobody is left to give references back
// to.
const QuickLook& quick_look() {
  static const QuickLook* quick = nullptr;
  if (quick == nullptr) {
    auto made = std::make_unique<QuickLook>();
    if (quick == nullptr) {
      quick = made.release();
    }
  }
  return *quick;
}

// How many views a storage has is kept on its Python object, which lives as long as they do: the
// methods that guard() put there look at it. Returns whether the storage was guarded before.
bool count_views(PyObject* storage, long change) {
  static PyObject* const views_name =
      checked(PyUnicode_InternFromString("_dlbridge_views")).release();
  const Ref attributes = checked(PyObject_GenericGetDict(storage, nullptr));
  PyObject* counted = PyDict_GetItem(attributes.get(), views_name);
  const long views = (counted == nullptr ? 0 : PyLong_AsLong(counted)) + change;
  const bool guarded_before = counted != nullptr;
  const Ref number = checked(PyLong_FromLong(views));
  checked(PyDict_SetItem(attributes.get(), views_name, number.get()));
  return guarded_before;
}

void let_go_of_storage(void* context) {
  const Ref storage(static_cast<PyObject*>(context));
  if (guarded([&]() -> PyObject* {
        count_views(storage.get(), -1);
        return Py_None;
      }) == nullptr) {
    PyErr_WriteUnraisable(storage.get());
  }
}

Lease storage_lease(PyObject* tensor) {
  Ref storage = checked(PyObject_CallMethod(tensor, "untyped_storage", nullptr));
  if (!count_views(storage.get(), 1)) {
    const Ref nothing = checked(PyObject_CallOneArg(guard_storage.get(), storage.get()));
  }
  return {storage.release(),
          [](void* context) noexcept { run_with_gil(context, let_go_of_storage); }};
}

class PortableRoad final : public TorchRoad {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "portable"; }

  bool describe(PyObject* tensor, Source& source) const noexcept override {
    return guarded([&] {
             const QuickLook& quick = quick_look();
             if (!quick.describe(tensor, source)) {
               const Ref described = checked(PyObject_CallOneArg(describe_tensor.get(), tensor));
               fill(described.get(), source);
             }
             return Py_None;
           }) != nullptr;
  }

  bool lease(PyObject* tensor, Source& source, Lease& lease) const noexcept override {
    return guarded([&]() -> PyObject* {
             if (source.tensor.data == nullptr) {
               return Py_None;
             }
             if (source.tensor.device.device_type != kDLCPU) {
               lease =
                   python_lease(checked(PyObject_CallMethod(tensor, "detach", nullptr)).release());
               return Py_None;
             }
             lease = storage_lease(tensor);
             // Only now: a copy-on-write storage gets memory of its own when a pointer is asked
             // for.
             const Ref address(PyObject_CallMethod(tensor, "data_ptr", nullptr));
             if (!address) {
               lease.give_back();
               throw PythonError();
             }
             source.tensor.data = PyLong_AsVoidPtr(address.get());
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

  [[nodiscard]] const Capabilities& capabilities() const noexcept override { return capabilities_; }

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

  // Asks torch for the types that it has. False, with Python's error set, when that failed.
  bool learn_types() noexcept {
    return guarded([&]() -> PyObject* {
             const Ref names = checked(PySequence_Tuple(known_dtypes.get()));
             for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names.get()); ++i) {
               const char* name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(names.get(), i));
               if (name == nullptr) {
                 throw PythonError();
               }
               if (dtype_named(name)) {
                 capabilities_.dtypes = capabilities_.dtypes | DTypeSet::of_name(name);
               }
             }
             return Py_None;
           }) != nullptr;
  }

 private:
  Capabilities capabilities_{
      .name = "torch",
      .result = "torch.Tensor",
      .devices = DeviceSet::of({kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged, kDLCUDA, kDLROCM,
                                kDLOneAPI, kDLExtDev}),
      .copies_to_device = true,
      .readonly = ReadOnlySupport::kUnaware,
      .guards_overlap = true,
      .negative_strides = false,
  };
};

PortableRoad portable_road;

}  // namespace

const TorchRoad* portable_torch_road() noexcept {
  return portable_road.learn_types() ? &portable_road : nullptr;
}

}  // namespace dlbridge::python
