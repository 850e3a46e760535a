#include "convert.hpp"

#include <cstring>

#include "arguments.hpp"
#include "capsule.hpp"
#include "devices.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/transfer.hpp"
#include "incoming.hpp"
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
PackageAttribute torch_empty("dlbridge._torch", "empty");

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

// What the library itself made of a tensor, or what it has against it. Of sizes that overflow
// beside a size of 0, say, each library has an opinion of its own.
Ref made_by(const char* result, PyObject* made) {
  if (made != nullptr) [[likely]] {
    return Ref(made);
  }
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  if (type != PyExc_ValueError && type != PyExc_RuntimeError) {
    PyErr_Restore(type, value, traceback);
    throw PythonError();
  }
  const Ref owned[] = {Ref(type), Ref(value), Ref(traceback)};
  const Ref text = checked(PyObject_Str(value));
  const char* bytes = PyUnicode_AsUTF8(text.get());
  if (bytes == nullptr) {
    throw PythonError();
  }
  const std::string said(bytes, std::strcspn(bytes, "\n"));  // torch adds a stack of C++
  if (said.starts_with("Failed to allocate")) {              // torch 2.15's words for it
    throw std::bad_alloc();
  }
  throw ConversionRefused("cannot make a " + std::string(result) + " of this tensor (" + said + ")",
                          {said});
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
  const Ref own = checked(PyObject_GetAttrString(explained.get(), "notes"));
  const Ref all = checked(PySequence_Concat(own.get(), text_tuple(notes).get()));
  const Ref replace = checked(PyObject_GetAttrString(explained.get(), "_replace"));
  const Ref keywords = checked(PyDict_New());
  checked(PyDict_SetItemString(keywords.get(), "notes", all.get()));
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

Ref array_over(ManagedTensor tensor) {
  Ref base = wrap(std::move(tensor));
  const ManagedTensor& managed = managed_of(base.get());
  const DLTensor described = managed.tensor();
  const bool readonly = managed.readonly();
  return made_by("numpy.ndarray", NumPy::array_over(described, readonly, base.release()));
}

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
  Incoming incoming(x, kind, {.stream = call.stream});
  const Capabilities& target = NumPy::capabilities(incoming.source(), call.request);
  const Plan decided = decide(incoming, target, call);
  if (incoming.kind() == SourceKind::kNumPy && decided.empty()) {
    return Ref::borrow(x);
  }
  crossing(Towards::kNumPy, decided, incoming.source(), target, call.policy, call.request);
  return array_over(incoming.carry(decided, target, call));
}

namespace {

Ref deliver_to_torch(ManagedTensor tensor, const TorchRoad& road) {
  tensor.drop_negative_strides();
  watch_tensor_deallocation();
  return made_by("torch.Tensor", road.deliver(tensor.release()));
}

// By torch's own copy, of the tensor itself or of one on the host.
Ref moved_by_torch(Incoming& incoming, const TorchRoad& road, const Capabilities& target,
                   const Plan& decided, const Call& call) {
  Ref delivered;
  PyObject* there = incoming.object();
  if (incoming.kind() != SourceKind::kTorch || call.request.dtype || decided.has(Step::kDensify)) {
    Call host_call = call;
    host_call.request.device = Device{};
    const Plan rest = decide(incoming, target, host_call);
    delivered = deliver_to_torch(incoming.carry(rest, target, host_call), road);
    there = delivered.get();
  }
  return checked(PyObject_CallFunction(torch_to_device.get(), "Oii", there, decided.device.type,
                                       decided.device.id));
}

// A copy on a device, in memory of torch's own that its streams order.
Ref copy_for_torch(Incoming& incoming, const Plan& decided) {
  const Source& source = incoming.source();
  const DType dtype = decided.has(Step::kCast) ? decided.dtype : DType(source.tensor.dtype);
  const Ref shape = shape_tuple(source.tensor);
  Ref made = checked(
      PyObject_CallFunction(torch_empty.get(), "O(iii)ii", shape.get(),
                            static_cast<int>(dtype.code), static_cast<int>(dtype.bits),
                            static_cast<int>(dtype.lanes), decided.device.type, decided.device.id));
  Incoming target(made.get(), {});
  const Stream stream = torch_stream(decided.device);
  {
    const WithoutGil without_gil;
    carry_out_into(decided, source, target.source().tensor, stream);
  }
  return made;
}

// The source is on a device, or the result is to be.
Ref to_torch_on_device(Incoming& incoming, const TorchRoad& road, const Call& call) {
  if (call.request.device) {
    (void)runtime_for(call.request.device->type);
  }
  const Capabilities target = torch_capabilities(road, incoming.source().tensor, call);
  incoming.adapt(target);
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kTorch, decided, incoming.source(), target, call.policy, call.request);
  const bool by_runtime =
      decided.carrier == Carrier::kRuntime ||
      (decided.carrier == Carrier::kNobody && runtime_for(decided.device.type) != nullptr);
  if (!decided.view && !decided.device.host_accessible() && by_runtime &&
      !decided.has(Step::kDensify)) {
    return copy_for_torch(incoming, decided);
  }
  if (decided.has(Step::kCopyToDevice)) {
    return moved_by_torch(incoming, road, target, decided, call);
  }
  ManagedTensor tensor = incoming.carry(decided, target, call);
  if (!decided.device.host_accessible()) {
    const Stream reader = torch_stream(decided.device);
    order_streams(decided.device, incoming.stream(), reader);
    tensor = until_done_on(std::move(tensor), reader);
  }
  return deliver_to_torch(std::move(tensor), road);
}

}  // namespace

Ref to_torch_object(PyObject* x, const Call& call) {
  const SourceKind kind = kind_of(x);
  if (kind == SourceKind::kNothing) [[unlikely]] {
    if (Ref tree = map_tree(x, [&](PyObject* leaf) { return to_torch_object(leaf, call); })) {
      return tree;
    }
  }
  Incoming incoming(x, kind, {.towards_torch = true, .stream = call.stream});
  if (stays_itself(incoming, incoming.kind() == SourceKind::kTorch, call)) {
    return Ref::borrow(x);
  }
  const TorchRoad& road = wanted_torch_road();
  const bool elsewhere = !Device(incoming.source().tensor.device).host_accessible();
  if (elsewhere || (call.request.device && !call.request.device->host_accessible())) [[unlikely]] {
    return to_torch_on_device(incoming, road, call);
  }
  const Capabilities& target = road.capabilities();
  incoming.adapt(target);
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kTorch, decided, incoming.source(), target, call.policy, call.request);
  return deliver_to_torch(incoming.carry(decided, target, call), road);
}

namespace {

// A managed tensor's memory is ordered on the runtime's own stream, whoever wrote to it.
ManagedTensor settled(ManagedTensor tensor, const Incoming& incoming) {
  if (!tensor.device().host_accessible()) [[unlikely]] {
    order_streams(tensor.device(), incoming.stream(), stream_of_managed(tensor.device()));
  }
  return tensor;
}

void meet_requested_device(const Call& call) {
  if (call.request.device) {
    (void)runtime_for(call.request.device->type);
  }
}

}  // namespace

Ref to_managed_object(PyObject* x, const Call& call) {
  meet_requested_device(call);
  Incoming incoming(x, {.stream = call.stream});
  const Capabilities& target = managed_tensor_capabilities();
  const Plan decided = decide(incoming, target, call);
  if (incoming.kind() == SourceKind::kManagedTensor && decided.empty()) {
    return Ref::borrow(x);
  }
  crossing(Towards::kManaged, decided, incoming.source(), target, call.policy, call.request);
  return wrap(settled(incoming.carry(decided, target, call), incoming));
}

ManagedTensor to_managed_tensor(PyObject* x, const Call& call) {
  meet_requested_device(call);
  Incoming incoming(x, {.stream = call.stream});
  const Capabilities& target = managed_tensor_capabilities();
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kManaged, decided, incoming.source(), target, call.policy, call.request);
  return settled(incoming.carry(decided, target, call), incoming);
}

Ref to_capsule(PyObject* x, const Call& call, bool versioned) {
  Incoming incoming(x, {.stream = call.stream});
  const Capabilities& target =
      versioned ? managed_tensor_capabilities() : legacy_capsule_capabilities();
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kCapsule, decided, incoming.source(), target, call.policy, call.request);
  ManagedTensor tensor = incoming.carry(decided, target, call);
  if (!tensor.device().host_accessible()) [[unlikely]] {
    // Whoever takes it knows no stream: the default one, as DLPack has it for stream=None.
    order_streams(tensor.device(), incoming.stream(), Stream{});
  }
  return make_capsule(std::move(tensor), versioned);
}

Ref to_consumer(PyObject* x, const ConsumerRow& row, const Call& call) {
  meet_requested_device(call);
  (void)runtime_for(row.capabilities.own_device);
  Incoming incoming(x, {.stream = call.stream});
  if (stays_itself(incoming, is_own(incoming, row), call)) {
    return Ref::borrow(Py_None);
  }
  Capabilities target = row.capabilities_for(incoming.source().tensor.device);
  incoming.adapt(target);
  const Plan decided = decide(incoming, target, call);
  crossing(Towards::kOther, decided, incoming.source(), target, call.policy, call.request);
  Call handing = call;
  const bool moved_by_it = decided.carrier == Carrier::kConsumer;
  if (target.copies || moved_by_it) {
    // The library itself makes the copy that was decided on: it only reads what it is given.
    target.copies = false;
    if (moved_by_it) {
      target.devices = DeviceSet::host();
      target.own_device = 0;
      handing.request.device.reset();
    }
    handing.policy =
        call.policy.with_copy(CopyRule::kWhenNeeded).with(Field::kReadOnly, Ruling::kAlias);
  }
  const Plan rest = decide(incoming, target, handing);
  ManagedTensor tensor = settled(incoming.carry(rest, target, handing), incoming);
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
    tensor = described_as(std::move(tensor), described, flags);
  }
  const Ref managed = wrap(std::move(tensor));
  const bool may_copy = call.policy.copy() != CopyRule::kNever;
  return checked(Py_BuildValue("(OOO)", managed.get(), decided.view ? Py_True : Py_False,
                               may_copy ? Py_True : Py_False));
}

Ref explain_object(PyObject* x, PyObject* target, const Call& call) {
  meet_requested_device(call);
  Incoming incoming(x, {.only_look = true});
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
  if (decided.carrier == Carrier::kProducer && !decided.is_refused()) {
    incoming.try_host_copy();
  }
  Ref explained = plan_object(decided, incoming.source(), row, call.policy, call.request);
  return consumer == nullptr || row.name != consumer->name
             ? std::move(explained)
             : with_notes(std::move(explained), decided, *consumer);
}

}  // namespace dlbridge::python
