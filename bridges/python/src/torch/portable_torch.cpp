#include "torch/portable_torch.hpp"

#include <memory>

#include "dlbridge/python_lease.hpp"
#include "dlbridge/torch_library.hpp"
#include "doors/exchange_table.hpp"
#include "torch/direct_call.hpp"
#include "torch/storage_views.hpp"
#include "types/capsule.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute describe_tensor("dlbridge._torch", "describe");
PackageAttribute tools_of_torch("dlbridge._torch", "Tools");
PackageAttribute prepare_tensor("dlbridge._torch", "prepare");
PackageAttribute deliver_tensor("dlbridge._torch", "deliver");
PackageAttribute takes_versioned("dlbridge._torch", "TAKES_VERSIONED");
PackageAttribute known_dtypes("dlbridge._torch", "DTYPES");
PackageAttribute without_torch_function("dlbridge._torch", "WithoutTorchFunction");
Name raw_repr_name("raw_repr");
Name level_name("_current_level");

long long integer_in(PyObject* tuple, Py_ssize_t index) {
  return integer_of(PyTuple_GET_ITEM(tuple, index));
}

// Copies a tuple of sizes into the source's room.
std::int64_t* integers_in(PyObject* tuple, std::int64_t* room) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    room[i] = integer_in(tuple, i);
  }
  return room;
}

DType dtype_in(PyObject* triple) {
  return {static_cast<int>(integer_in(triple, 0)), static_cast<int>(integer_in(triple, 1)),
          static_cast<int>(integer_in(triple, 2))};
}

Ref attribute(const Ref& object, const char* name) {
  return checked(PyObject_GetAttrString(object.get(), name));
}

// From the Description in _torch/tensors.py.
void fill(const Ref& described, Source& source) {
  source.traits = torch_detail::kTraits;
  const Ref conditions = attribute(described, "conditions");
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(conditions.get()); ++i) {
    source.traits.conditions.add(static_cast<Condition>(integer_in(conditions.get(), i)));
  }
  source.tensor.dtype = dtype_in(attribute(described, "dtype").get()).dl();
  const Ref device = attribute(described, "device");
  const Device place(static_cast<std::int32_t>(integer_in(device.get(), 0)),
                     static_cast<std::int32_t>(integer_in(device.get(), 1)));
  source.tensor.device = place.dl();
  source.traits.stream_known = source.traits.maybe_pinned = place.type == kDLCPU;
  source.detail = text_of(attribute(described, "detail").get());
  source.fix = text_of(attribute(described, "fix").get());
  const Ref shape = attribute(described, "shape");
  source.tensor.ndim = static_cast<std::int32_t>(PyTuple_GET_SIZE(shape.get()));
  if (source.tensor.ndim > kMaxDimensions) {  // for which there is no room
    source.traits.conditions.add(Condition::kTooManyDimensions);
    return;
  }
  source.tensor.data = reinterpret_cast<void*>(integer_of(attribute(described, "data").get()));
  source.tensor.shape = integers_in(shape.get(), source.room.data());
  const Ref strides = attribute(described, "strides");
  if (PyTuple_GET_SIZE(strides.get()) != 0) {  // a sparse layout has none
    source.tensor.strides = integers_in(strides.get(), source.room.data() + kMaxDimensions);
  }
}

// What an ordinary tensor is asked for directly, in C. A torch that lacks one of these, or an
// exchange table, is described by _torch/tensors.py alone.
struct Tools {
  Ref given = checked(PyObject_CallNoArgs(tools_of_torch.get()));
  Ref tensor = attribute(given, "tensor");
  Ref parameter = attribute(given, "parameter");
  Ref keys_of = attribute(given, "keys_of");
  Ref ordinary_keys = attribute(given, "ordinary_keys");
  Ref dtypes = attribute(given, "dtypes");  // DLPack's triple of each torch.dtype
  Ref forward_mode = attribute(given, "forward_mode");
  Ref is_tracing = attribute(given, "is_tracing");
  Ref in_function_mode = attribute(given, "in_function_mode");
  Ref count_modes = attribute(given, "count_modes");
  Ref in_transform = attribute(given, "in_transform");
  Ref lift = attribute(given, "lift");
  Ref from_numpy = attribute(given, "from_numpy");
  Ref empty_array = attribute(given, "empty_array");
  Ref host_tensor = attribute(given, "host_tensor");
  const DLPackExchangeAPI* table = nullptr;
  DirectGetter dtype;
  DirectGetter requires_grad;
  DirectMethod is_neg;
  DirectMethod is_conj;
  DirectMethod data_ptr;
  DirectMethod untyped_storage;
  DirectMethod storage_data_ptr;
  DirectMethod storage_nbytes;

  Tools() {
    const Ref storage = attribute(given, "storage");
    dtype = {tensor.get(), "dtype"};
    requires_grad = {tensor.get(), "requires_grad"};
    is_neg = {tensor.get(), "is_neg"};
    is_conj = {tensor.get(), "is_conj"};
    data_ptr = {tensor.get(), "data_ptr"};
    untyped_storage = {tensor.get(), "untyped_storage"};
    storage_data_ptr = {storage.get(), "data_ptr"};
    storage_nbytes = {storage.get(), "nbytes"};
    table = exchange_table_of(tensor.get());
  }

  // Whether an ordinary tensor can be described with these.
  [[nodiscard]] bool complete() const {
    return table != nullptr && dtype && requires_grad && is_neg && is_conj && data_ptr &&
           untyped_storage && storage_data_ptr && storage_nbytes;
  }
};

// Made under the GIL alone, not in a static's initialiser: that would hold a lock of C++ while
// Python lets other threads run. Never destroyed: at exit nobody is left to give references back
// to.
const Tools& tools() {
  static const Tools* made = nullptr;
  if (made == nullptr) {
    auto fresh = std::make_unique<Tools>();
    if (made == nullptr) {
      made = fresh.release();
    }
  }
  return *made;
}

bool is_torchs_own(const Tools& torch, PyObject* tensor) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor));
  return type == torch.tensor.get() || type == torch.parameter.get();
}

bool answers_true(const Ref& question) {
  return checked(PyObject_CallNoArgs(question.get())).get() == Py_True;
}

// While it lives, nothing that is asked goes through a __torch_function__, a subclass's or a
// mode's, which may do anything.
class WithoutTorchFunction {
 public:
  explicit WithoutTorchFunction(PyObject* tensor) {
    if (!is_torchs_own(tools(), tensor) || answers_true(tools().in_function_mode)) {
      scope_ = checked(PyObject_CallNoArgs(without_torch_function.get()));
      checked(PyObject_CallMethod(scope_.get(), "__enter__", nullptr));
    }
  }
  WithoutTorchFunction(const WithoutTorchFunction&) = delete;
  WithoutTorchFunction& operator=(const WithoutTorchFunction&) = delete;
  ~WithoutTorchFunction() {
    if (scope_) {
      const KeepError kept;
      const Ref left(
          PyObject_CallMethod(scope_.get(), "__exit__", "OOO", Py_None, Py_None, Py_None));
    }
  }

 private:
  Ref scope_;
};

// Whether nothing changes what the memory means. torch.Tensor itself and Parameter can only be
// conjugated, if complex, or negated, or have no memory to be lent, which the exchange table finds;
// of any other class the dispatch keys are looked at.
bool is_ordinary(const Tools& torch, PyObject* tensor, DType dtype) {
  if (is_torchs_own(torch, tensor)) {
    return torch.is_neg(tensor).get() == Py_False &&
           (dtype.code != kDLComplex || torch.is_conj(tensor).get() == Py_False);
  }
  const Ref keys = checked(PyObject_CallOneArg(torch.keys_of.get(), tensor));
  const Ref number = checked(PyObject_CallMethodNoArgs(keys.get(), raw_repr_name.get()));
  return checked_truth(PySet_Contains(torch.ordinary_keys.get(), number.get()));
}

bool in_forward_mode(const Tools& torch) {
  PyObject* level = found_in(torch.forward_mode.get(), level_name.get());
  return level == nullptr || integer_of(level) >= 0;
}

// Whether there are elements, and the storage has them all: its resize_() can leave a tensor larger
// than its memory (torch 2.15).
bool has_its_memory(const Tools& torch, PyObject* tensor, const DLTensor& borrowed) {
  std::int64_t last = 0;
  for (std::int32_t i = 0; i < borrowed.ndim; ++i) {
    if (borrowed.shape[i] == 0) {
      return false;
    }
    last += (borrowed.shape[i] - 1) * borrowed.strides[i];
  }
  if (borrowed.data == nullptr) {
    return false;
  }
  const Ref storage = torch.untyped_storage(tensor);
  const Ref start = torch.storage_data_ptr(storage.get());
  const Ref bytes = torch.storage_nbytes(storage.get());
  const auto* from = static_cast<const char*>(PyLong_AsVoidPtr(start.get()));
  const long long size = PyLong_AsLongLong(bytes.get());
  check_error();
  const auto offset = static_cast<const char*>(borrowed.data) - from;
  return offset + (last + 1) * DType(borrowed.dtype).itemsize() <= size;
}

// Describes an ordinary tensor with a few calls into torch. False where it is not ordinary; nothing
// is filled in then.
bool describe_ordinary(PyObject* tensor, Source& source) {
  const Tools& torch = tools();
  if (!torch.complete() || in_forward_mode(torch)) {
    return false;
  }
  PyObject* triple = found_in(torch.dtypes.get(), torch.dtype(tensor).get());
  if (triple == nullptr) {
    return false;
  }
  const DType dtype = dtype_in(triple);
  if (!is_ordinary(torch, tensor, dtype)) {
    return false;
  }
  DLTensor borrowed{};
  if (torch.table->dltensor_from_py_object_no_sync(tensor, &borrowed) != 0) {
    forget_error();  // _torch/tensors.py says it in a text of ours
    return false;
  }
  if (!has_its_memory(torch, tensor, borrowed)) {
    return false;
  }
  source.traits = torch_detail::kTraits;
  source.traits.conditions.add_if(torch.requires_grad(tensor).get() == Py_True,
                                  Condition::kInGraph);
  source.tensor = borrowed;
  source.traits.stream_known = source.traits.maybe_pinned = borrowed.device.device_type == kDLCPU;
  // The table's own type says int8 for torch.int4.
  source.tensor.dtype = dtype.dl();
  return true;
}

CountedView view_of_storage(const Tools& torch, PyObject* tensor) {
  return counted_view(torch.untyped_storage
                          ? torch.untyped_storage(tensor)
                          : checked(PyObject_CallMethod(tensor, "untyped_storage", nullptr)));
}

class PortableRoad final : public TorchRoad {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "portable"; }

  bool describe(PyObject* tensor, Source& source) const noexcept override {
    return succeeds([&] {
      const WithoutTorchFunction scope(tensor);
      if (!describe_ordinary(tensor, source)) {
        const Ref described = checked(PyObject_CallOneArg(describe_tensor.get(), tensor));
        fill(described, source);
      }
      source.traits.conditions.add_if(answers_true(tools().is_tracing), Condition::kTraced);
    });
  }

  // Python's attributes are asked one by one.
  Glance plain(PyObject* /*tensor*/, DLTensor& /*described*/) const noexcept override {
    return Glance::kCloser;
  }

  bool lease(PyObject* tensor, DLTensor& described, Lease& lease) const noexcept override {
    return succeeds([&] {
      if (described.data == nullptr) {
        return;
      }
      const WithoutTorchFunction scope(tensor);
      if (described.device.device_type != kDLCPU) {
        lease = python_lease(checked(PyObject_CallMethod(tensor, "detach", nullptr)).release());
        return;
      }
      const Tools& torch = tools();
      CountedView view = view_of_storage(torch, tensor);
      // Only now: a copy-on-write storage gets memory of its own when a pointer is asked
      // for.
      const Ref address = torch.data_ptr
                              ? torch.data_ptr(tensor)
                              : checked(PyObject_CallMethod(tensor, "data_ptr", nullptr));
      described.data = PyLong_AsVoidPtr(address.get());
      check_error();
      lease = {view.release(),
               [](void* context) noexcept { run_with_gil(context, let_go_of_view); }};
    });
  }

  PyObject* prepare(PyObject* tensor, const Leg& leg) const noexcept override {
    return guarded([&] {
      const WithoutTorchFunction scope(tensor);
      return PyObject_CallFunction(prepare_tensor.get(), "OOO", tensor,
                                   leg.has(Step::kDensify) ? Py_True : Py_False,
                                   leg.has(Step::kCopyToHost) ? Py_True : Py_False);
    });
  }

  [[nodiscard]] const Capabilities& capabilities() const noexcept override { return capabilities_; }

  PyObject* deliver(DLManagedTensorVersioned* managed) const noexcept override {
    return guarded([&] {
      ManagedTensor tensor = ManagedTensor::adopt(managed);
      if (tensor.device().host_accessible()) {
        tensor.relabel(Device{});  // torch 2.15 refuses kDLCUDAHost and kDLCUDAManaged
      }
      return lifted(by_torch(std::move(tensor)));
    });
  }

  bool warn_of_trace() const noexcept override {
    return succeeds([] {
      const Ref tensor = checked(PyObject_CallNoArgs(tools().host_tensor.get()));
      checked(PyObject_CallMethod(tensor.get(), "numpy", nullptr));
    });
  }

  // Asks torch for the types that it has. False, with Python's error set, when that failed.
  bool learn_types() noexcept {
    return succeeds([&] {
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
    });
  }

 private:
  static Ref by_torch(ManagedTensor tensor) {
    if (const DLPackExchangeAPI* table = tools().table) {
      return checked(deliver_by_table(*table, std::move(tensor)));
    }
    return by_capsule(std::move(tensor));
  }

  // Before 2.9 torch may end a tensor that it then refuses, and leave the capsule's name: it would
  // be ended again. A count of our own tells. Nor does it take float8, which it has, from others.
  static Ref by_capsule(ManagedTensor tensor) {
    const DType dtype = tensor.dtype();
    const bool versioned = takes_versioned.get() == Py_True;
    if (dtype.code > kDLBool && !versioned) {
      tensor.reinterpret(DType(kDLUInt, static_cast<int>(dtype.element_bits()), 1));
    }
    auto* block = reinterpret_cast<detail::Block*>(tensor.release());
    block->managed.flags = versioned ? block->managed.flags : 0;  // read-only: the policy's matter
    detail::retain(block);
    std::unique_ptr<detail::Block, void (*)(detail::Block*)> kept(block, detail::release);
    const std::uint32_t both = block->references.load(std::memory_order_relaxed);
    const Ref capsule = make_capsule(ManagedTensor::retake(&block->managed), versioned);
    Ref made(PyObject_CallFunction(deliver_tensor.get(), "O(iii)", capsule.get(), dtype.code,
                                   dtype.bits, dtype.lanes));
    if (!made) {
      const KeepError keep;
      if (block->references.load(std::memory_order_relaxed) < both) {
        PyCapsule_SetName(capsule.get(), "used_dltensor");
      }
      kept.reset();
    }
    return checked(made.release());
  }

  // A new tensor as torch.from_numpy() gives it to who watches: modes, transforms, traces.
  static Ref lifted(Ref tensor) {
    const Tools& torch = tools();
    const bool traced = answers_true(torch.is_tracing);
    if (!traced && !answers_true(torch.in_transform) &&
        integer_of(checked(PyObject_CallNoArgs(torch.count_modes.get())).get()) == 0) {
      return tensor;
    }
    Ref made = checked(PyObject_CallOneArg(torch.lift.get(), tensor.get()));
    if (traced) {
      const Ref array = checked(PyObject_CallNoArgs(torch.empty_array.get()));
      checked(PyObject_CallOneArg(torch.from_numpy.get(), array.get()));  // torch warns
    }
    return made;
  }

  Capabilities capabilities_ = torch_detail::capabilities_with({});
};

PortableRoad portable_road;

}  // namespace

const TorchRoad* portable_torch_road() noexcept {
  return portable_road.learn_types() ? &portable_road : nullptr;
}

}  // namespace dlbridge::python
