#include "convert.hpp"

#include "arguments.hpp"
#include "capsule.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/python_lease.hpp"
#include "float4.hpp"
#include "ledger.hpp"
#include "managed_tensor_type.hpp"
#include "registry.hpp"
#include "torch_release.hpp"
#include "torch_road.hpp"
#include "trees.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute torch_to_device("dlbridge._torch", "to_device");
PackageAttribute torch_has_device("dlbridge._torch", "has_device");

constexpr Library kManagedLibrary{
    .name = "dlbridge",
    .object = "dlbridge.ManagedTensor",
    .fixes = {{{Condition::kReadOnly, "dlbridge.from_dlpack(x, copy=True)"},
               {Condition::kNegativeStrides, "dlbridge.from_dlpack(x, copy=True)"}}},
};
constexpr Library kCapsuleLibrary{.name = "dlpack", .object = "DLPack capsule"};

// The tensor's memory under another description.
ManagedTensor with(ManagedTensor tensor, const DLTensor& described, std::uint64_t flags) {
  const Lease lease{tensor.release(), [](void* held) noexcept {
                      auto* managed = static_cast<DLManagedTensorVersioned*>(held);
                      managed->deleter(managed);
                    }};
  return ManagedTensor::own(described, flags, lease);
}

// How an object is going to be read, and what is known of it. Ends with the crossing.
class Incoming {
 public:
  Incoming(PyObject* object, bool only_look) : Incoming(object, kind_of(object), only_look) {}
  Incoming(PyObject* object, SourceKind kind, bool only_look) : object_(object), kind_(kind) {
    look(only_look);
  }

  [[nodiscard]] Source& source() { return crossing_.source; }
  [[nodiscard]] SourceKind kind() const { return kind_; }
  [[nodiscard]] PyObject* object() const { return object_; }
  [[nodiscard]] const LibraryRow* row() const { return crossing_.row; }

  // Calls the packed float4 by the name that the target knows.
  void adapt(const Capabilities& target) {
    if (source().tensor.dtype.code == kDLFloat4_e2m1fn) [[unlikely]] {
      respelled_ = respell_float4(source(), target) || respelled_;
    }
  }

  // Whether a producer copies to the host when asked is known only after asking. Throws as the
  // conversion would.
  void try_host_copy() const {
    if (kind_ != SourceKind::kTorch) {
      (void)ask_for_host_copy(object_, crossing_);
    }
  }

  // The managed tensor that an accepted plan makes of the object.
  ManagedTensor carry(const Plan& plan, const Capabilities& target, const Call& call) {
    if (plan.has(Step::kDensify) || plan.has(Step::kCopyToHost)) {
      return carry_by_library(plan, target, call);
    }
    if (!plan.view) {
      const bool elsewhere = !Device(source().tensor.device).host_accessible();
      if (elsewhere && crossing_.taken && !plan.has(Step::kCast)) {
        ManagedTensor copy = ask_for_copy(object_, crossing_);
        copy.mark_copied();
        return copy;
      }
      return carry_out(plan, source());
    }
    ManagedTensor view = acquire();
    if (respelled_) {
      const std::uint64_t flags = view.flags();
      view = with(std::move(view), source().tensor, flags);
    }
    carry_out_view(plan, view);
    return view;
  }

 private:
  void look(bool only_look) {
    switch (kind_) {
      case SourceKind::kTorch: {
        const TorchRoad* road = torch_road();
        if (road == nullptr || !road->describe(object_, source())) {
          throw PythonError();
        }
        break;
      }
      case SourceKind::kNumPy:
        NumPy::describe(object_, source());
        break;
      case SourceKind::kNumPyScalar:
        scalar_ = Ref(NumPy::array_of_scalar(object_));
        object_ = scalar_.get();
        NumPy::describe(object_, source());
        break;
      case SourceKind::kManagedTensor:
        describe(managed_of(object_), kManagedLibrary, source());
        break;
      case SourceKind::kCapsule:
        crossing_.object_name = kCapsuleLibrary.object;
        crossing_.library = kCapsuleLibrary;
        if (only_look) {
          peek_capsule(object_, *crossing_.library, source());
          break;
        }
        crossing_.taken = take_capsule(object_, false);
        describe(crossing_.taken, *crossing_.library, source());
        break;
      default:
        take_generic(object_, kind_, crossing_);
    }
  }

  ManagedTensor acquire() {
    switch (kind_) {
      case SourceKind::kTorch: {
        Lease lease;
        if (!torch_road()->lease(object_, source(), lease)) {
          throw PythonError();
        }
        return ManagedTensor::own_trusted(source().tensor, 0, lease);
      }
      case SourceKind::kNumPy:
      case SourceKind::kNumPyScalar:
        return NumPy::acquire(object_, source());
      case SourceKind::kManagedTensor:
        return managed_of(object_).share();
      default:
        return std::move(crossing_.taken);
    }
  }

  // Steps that only the source's library can carry out; what it makes is private to this crossing.
  ManagedTensor carry_by_library(const Plan& plan, const Capabilities& target, const Call& call) {
    const Call viewing{call.policy.with_copy(CopyRule::kWhenNeeded), call.request};
    if (kind_ == SourceKind::kTorch) {
      const Ref prepared = checked(torch_road()->prepare(object_, plan));
      return finish(Incoming(prepared.get(), false), target, viewing);
    }
    const Ref copied = wrap(ask_for_host_copy(object_, crossing_));
    return finish(Incoming(copied.get(), false), target, viewing);
  }

  static ManagedTensor finish(Incoming prepared, const Capabilities& target, const Call& call) {
    const Plan rest = plan(prepared.source(), target, call.policy, call.request);
    if (rest.is_refused()) {
      raise_refused(rest, prepared.source(), target, call.policy, call.request);
    }
    ManagedTensor tensor = prepared.carry(rest, target, call);
    tensor.mark_copied();
    return tensor;
  }

  PyObject* object_;
  Ref scalar_;
  SourceKind kind_;
  Crossing crossing_;
  bool respelled_ = false;
};

Plan decide(Incoming& incoming, const Capabilities& target, const Call& call) {
  const Plan decided = plan(incoming.source(), target, call.policy, call.request);
  if (decided.is_refused()) [[unlikely]] {
    raise_refused(decided, incoming.source(), target, call.policy, call.request);
  }
  return decided;
}

// Whether nothing is asked of an object that is of the target's library already: it stays itself,
// with its graph, its layout and its values, whatever they are.
bool stays_itself(const Incoming& incoming, bool own, const Call& call) {
  if (!own || call.policy.copy() == CopyRule::kAlways) {
    return false;
  }
  const DLTensor& tensor = const_cast<Incoming&>(incoming).source().tensor;
  return (!call.request.dtype || *call.request.dtype == DType(tensor.dtype)) &&
         (!call.request.device || *call.request.device == Device(tensor.device));
}

// The road to torch, which is imported if nobody has done so yet.
const TorchRoad& wanted_torch_road() {
  const TorchRoad* road = torch_road();
  if (road == nullptr) {
    throw PythonError();
  }
  return *road;
}

// Torch's table of capabilities, with the devices of this machine.
Capabilities torch_capabilities(const TorchRoad& road, const DLTensor& tensor, const Call& call) {
  Capabilities capabilities = road.capabilities();
  const Device device = call.request.device.value_or(tensor.device);
  if (!device.host_accessible()) {
    const Ref there = checked(PyObject_CallFunction(torch_has_device.get(), "i", device.type));
    if (there.get() != Py_True) {
      capabilities.devices = DeviceSet::host();
      capabilities.wants_host = true;
    }
  }
  return capabilities;
}

Ref array_over(ManagedTensor tensor) {
  Ref base = wrap(std::move(tensor));
  const ManagedTensor& managed = managed_of(base.get());
  const DLTensor described = managed.tensor();
  const bool readonly = managed.readonly();
  return checked(NumPy::array_over(described, readonly, base.release()));
}

// Whether the object is of the library that it is to go to.
bool is_own(const Incoming& incoming, const ConsumerRow& row) {
  return incoming.row() != nullptr && incoming.row()->name == row.library;
}

// The Plan, with what the library would have done by itself where it was met.
Ref with_notes(Ref explained, const Plan& decided, const ConsumerRow& row) {
  std::vector<std::string> notes = row.always;
  for (const auto& [condition, text] : row.quirks) {
    if (decided.reasons.has(condition)) {
      notes.push_back(text);
    }
  }
  if (notes.empty()) {
    return explained;
  }
  const Ref replace = checked(PyObject_GetAttrString(explained.get(), "_replace"));
  const Ref keywords = checked(PyDict_New());
  checked(PyDict_SetItemString(keywords.get(), "notes", text_tuple(notes).get()));
  const Ref nothing = checked(PyTuple_New(0));
  return checked(PyObject_Call(replace.get(), nothing.get(), keywords.get()));
}

const Capabilities& legacy_capsule_capabilities() {
  static const Capabilities kLegacy = [] {
    Capabilities capabilities = managed_tensor_capabilities();
    capabilities.name = "a legacy capsule";
    capabilities.result = "PyCapsule";
    capabilities.readonly = ReadOnlySupport::kNever;
    capabilities.carries_padding = false;
    return capabilities;
  }();
  return kLegacy;
}

}  // namespace

Call read_call(PyObject* policy, PyObject* dtype, PyObject* copy, PyObject* device) {
  Call call;
  call.policy = policy_argument(policy);
  if (copy != nullptr && copy != Py_None) {
    call.policy = call.policy.with_copy(copy_rule(copy, CopyRule::kWhenNeeded));
    call.request.copy_was_argument = true;
  }
  if (dtype != nullptr && dtype != Py_None) {
    call.request.dtype = dtype_argument(dtype);
  }
  if (device != nullptr && device != Py_None) {
    call.request.device = device_argument(device);
  }
  return call;
}

Ref to_numpy_object(PyObject* x, PyObject* policy, PyObject* dtype, PyObject* copy) {
  return to_numpy_object(x, read_call(policy, dtype, copy, nullptr));
}

Ref to_numpy_object(PyObject* x, const Call& call) {
  const SourceKind kind = kind_of(x);
  if (kind == SourceKind::kNothing) [[unlikely]] {
    if (Ref tree = map_tree(x, [&](PyObject* leaf) { return to_numpy_object(leaf, call); })) {
      return tree;
    }
  }
  Incoming incoming(x, kind, false);
  const Capabilities& target = NumPy::capabilities(incoming.source(), call.request);
  const Plan decided = decide(incoming, target, call);
  if (incoming.kind() == SourceKind::kNumPy && decided.empty()) {
    return Ref::borrow(x);
  }
  crossing(Towards::kNumPy, decided, incoming.source(), target, call.policy, call.request);
  return array_over(incoming.carry(decided, target, call));
}

Ref to_torch_object(PyObject* x, const Call& call) {
  const SourceKind kind = kind_of(x);
  if (kind == SourceKind::kNothing) [[unlikely]] {
    if (Ref tree = map_tree(x, [&](PyObject* leaf) { return to_torch_object(leaf, call); })) {
      return tree;
    }
  }
  Incoming incoming(x, kind, false);
  if (stays_itself(incoming, incoming.kind() == SourceKind::kTorch, call)) {
    return Ref::borrow(x);
  }
  const TorchRoad& road = wanted_torch_road();
  Call host_call = call;
  std::optional<Device> device;
  if (call.request.device) {
    const Capabilities target = torch_capabilities(road, incoming.source().tensor, call);
    const Plan decided = decide(incoming, target, call);
    if (decided.has(Step::kCopyToDevice)) {
      crossing(Towards::kTorch, decided, incoming.source(), target, call.policy, call.request);
      if (incoming.kind() == SourceKind::kTorch && !call.request.dtype) {
        return checked(PyObject_CallFunction(torch_to_device.get(), "Oii", x, decided.device.type,
                                             decided.device.id));
      }
      device = decided.device;
      host_call.request.device = Device{};
    }
  }
  const bool elsewhere = !Device(incoming.source().tensor.device).host_accessible();
  std::optional<Capabilities> there;
  if (elsewhere) [[unlikely]] {
    there = torch_capabilities(road, incoming.source().tensor, host_call);
  }
  const Capabilities& target = there ? *there : road.capabilities();
  incoming.adapt(target);
  const Plan decided = decide(incoming, target, host_call);
  if (!device) {
    crossing(Towards::kTorch, decided, incoming.source(), target, call.policy, call.request);
  }
  ManagedTensor tensor = incoming.carry(decided, target, host_call);
  tensor.drop_negative_strides();
  watch_tensor_deallocation();
  Ref delivered = checked(road.deliver(tensor.release()));
  if (device) {
    return checked(PyObject_CallFunction(torch_to_device.get(), "Oii", delivered.get(),
                                         device->type, device->id));
  }
  return delivered;
}

Ref to_managed_object(PyObject* x, const Call& call) {
  Incoming incoming(x, false);
  const Capabilities& target = managed_tensor_capabilities();
  const Plan decided = decide(incoming, target, call);
  if (incoming.kind() == SourceKind::kManagedTensor && decided.empty()) {
    return Ref::borrow(x);
  }
  crossing(Towards::kManaged, decided, incoming.source(), target, call.policy, call.request);
  return wrap(incoming.carry(decided, target, call));
}

ManagedTensor to_managed_tensor(PyObject* x, const Call& call) {
  Incoming incoming(x, false);
  const Capabilities& target = managed_tensor_capabilities();
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kManaged, decided, incoming.source(), target, call.policy, call.request);
  return incoming.carry(decided, target, call);
}

Ref to_capsule(PyObject* x, const Call& call, bool versioned) {
  Incoming incoming(x, false);
  const Capabilities& target =
      versioned ? managed_tensor_capabilities() : legacy_capsule_capabilities();
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kCapsule, decided, incoming.source(), target, call.policy, call.request);
  return make_capsule(incoming.carry(decided, target, call), versioned);
}

Ref to_consumer(PyObject* x, const ConsumerRow& row, const Call& call) {
  Incoming incoming(x, false);
  if (stays_itself(incoming, is_own(incoming, row), call)) {
    return Ref::borrow(Py_None);
  }
  Capabilities target = row.capabilities_for(incoming.source().tensor.device);
  incoming.adapt(target);
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kOther, decided, incoming.source(), target, call.policy, call.request);
  Call handing = call;
  if (target.copies || decided.has(Step::kCopyToDevice)) {
    // The library itself makes the copy that was decided on: it only reads what it is given.
    target.copies = false;
    if (decided.has(Step::kCopyToDevice)) {
      target.devices = DeviceSet::host();
      target.own_device = 0;
      handing.request.device.reset();
    }
    handing.policy =
        call.policy.with_copy(CopyRule::kWhenNeeded).with(Field::kReadOnly, Ruling::kAlias);
  }
  const Plan rest = decide(incoming, target, handing);
  ManagedTensor tensor = incoming.carry(rest, target, handing);
  if (!target.negative_strides) {
    tensor.drop_negative_strides();
  }
  if (!row.every_device && tensor.device().host_accessible()) {
    tensor.relabel(Device{});  // pinned memory is the host's to whoever reads it there
  }
  if (tensor.readonly() && target.readonly != ReadOnlySupport::kHonours) {
    // The policy said to, or the library copies: its kind of capsule cannot carry the flag.
    const DLTensor described = tensor.tensor();
    const std::uint64_t flags = tensor.flags() & ~std::uint64_t{DLPACK_FLAG_BITMASK_READ_ONLY};
    tensor = with(std::move(tensor), described, flags);
  }
  const Ref managed = wrap(std::move(tensor));
  const bool may_copy = call.policy.copy() != CopyRule::kNever;
  return checked(Py_BuildValue("(OOO)", managed.get(), decided.view ? Py_True : Py_False,
                               may_copy ? Py_True : Py_False));
}

Ref explain_object(PyObject* x, PyObject* target, const Call& call) {
  Incoming incoming(x, true);
  Capabilities row;
  const ConsumerRow* consumer = nullptr;
  bool own = false;
  if (PyCapsule_CheckExact(target)) {
    consumer = &consumer_in(target);
    row = consumer->capabilities_for(incoming.source().tensor.device);
    own = is_own(incoming, *consumer);
  } else if (PyUnicode_CompareWithASCIIString(target, "numpy") == 0) {
    row = NumPy::capabilities(incoming.source(), call.request);
  } else if (PyUnicode_CompareWithASCIIString(target, "torch") == 0) {
    row = torch_capabilities(wanted_torch_road(), incoming.source().tensor, call);
    own = incoming.kind() == SourceKind::kTorch;
  } else {
    row = managed_tensor_capabilities();
  }
  if (stays_itself(incoming, own, call)) {
    incoming.source().traits.conditions = {};
    incoming.source().tensor.strides = nullptr;
    if (consumer != nullptr) {
      row = managed_tensor_capabilities();
      row.result = consumer->result;
    }
  }
  incoming.adapt(row);
  const Plan decided = plan(incoming.source(), row, call.policy, call.request);
  if (decided.has(Step::kCopyToHost)) {
    incoming.try_host_copy();
  }
  Ref explained = plan_object(decided, incoming.source(), row, call.policy, call.request);
  return consumer == nullptr || row.name != consumer->name
             ? std::move(explained)
             : with_notes(std::move(explained), decided, *consumer);
}

}  // namespace dlbridge::python
