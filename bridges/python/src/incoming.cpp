#include "incoming.hpp"

#include "capsule.hpp"
#include "devices.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/python_lease.hpp"
#include "float4.hpp"
#include "managed_tensor_type.hpp"
#include "registry.hpp"
#include "torch_road.hpp"

namespace dlbridge::python {
namespace {

constexpr Library kManagedLibrary{
    .name = "dlbridge",
    .object = "dlbridge.ManagedTensor",
    .fixes = {{{Condition::kReadOnly, "dlbridge.from_dlpack(x, copy=True)"},
               {Condition::kNegativeStrides, "dlbridge.from_dlpack(x, copy=True)"}}},
};
constexpr Library kCapsuleLibrary{.name = "dlpack", .object = "DLPack capsule"};

// Runs on the processor at once; what waits for a device lets others have the GIL.
ManagedTensor carry_out_here(const Plan& plan, const Source& source) {
  if (Device(source.tensor.device).host_accessible() && plan.device.host_accessible()) {
    return carry_out(plan, source);
  }
  const WithoutGil without_gil;
  return carry_out(plan, source);
}

}  // namespace

// For memory that is not plain host memory.
void Incoming::settle(const Look& how) {
  if (source().tensor.device.device_type != kDLCPU) {
    settle_device(how);
  } else {
    settle_pinned(source());
  }
}

void Incoming::adapt(const Capabilities& target) {
  if (source().tensor.dtype.code == kDLFloat4_e2m1fn) [[unlikely]] {
    respelled_ = respell_float4(source(), target) || respelled_;
  }
}

void Incoming::try_host_copy() const {
  if (kind_ != SourceKind::kTorch) {
    (void)ask_for_host_copy(object_, crossing_);
  }
}

ManagedTensor Incoming::carry_otherwise(const Plan& plan, const Capabilities& target,
                                        const Call& call) {
  if (plan.has(Step::kDensify) || plan.carrier == Carrier::kProducer) {
    return carry_by_library(plan, target, call);
  }
  const Device device(source().tensor.device);
  if (device.type != kDLCPU && device.host_accessible()) {
    const WithoutGil without_gil;
    wait_for_host_memory(source());
  }
  if (!plan.view) {
    const bool elsewhere = !device.host_accessible();
    carried_on_ = stream_of_managed(plan.device);
    if (elsewhere && runtime_for(device.type) == nullptr && crossing_.taken &&
        !plan.has(Step::kCast)) {
      ManagedTensor copy = ask_for_copy(object_, crossing_);
      copy.mark_copied();
      return copy;
    }
    return carry_out_here(plan, source());
  }
  ManagedTensor view = acquire();
  carried_on_ = source().stream;
  if (respelled_) {
    const std::uint64_t flags = view.flags();
    view = described_as(std::move(view), source().tensor, flags);
  }
  carry_out_view(plan, view);
  return view;
}

void Incoming::look(const Look& how) {
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
      if (how.only_look) {
        peek_capsule(object_, *crossing_.library, source());
        break;
      }
      crossing_.taken = take_capsule(object_, false);
      describe(crossing_.taken, *crossing_.library, source());
      break;
    default:
      crossing_.reader = how.stream;
      crossing_.towards_torch = how.towards_torch;
      take_generic(object_, kind_, crossing_);
  }
}

// Which runtime there is, what orders the memory, and where it lies in truth.
void Incoming::settle_device(const Look& how) {
  const Device device(source().tensor.device);
  if (runtime_for(device.type) == nullptr) {
    return;
  }
  if (kind_ == SourceKind::kTorch && !source().traits.stream_known) {
    source().stream = torch_stream(device);
    source().traits.stream_known = true;
  } else if (kind_ == SourceKind::kManagedTensor) {
    source().stream = stream_of_managed(device);
  }
  if (how.stream) {
    source().stream = *how.stream;
  }
  if (kind_ != SourceKind::kTorch && !device.host_accessible()) {
    settle_location();
  }
}

// An object may name another device than its memory is on (Paddle#68549, cuvs#2239).
void Incoming::settle_location() {
  DLTensor& tensor = source().tensor;
  const Device said(tensor.device);
  if (!said.addressable() || element_count(tensor) == 0 || tensor.data == nullptr) {
    return;
  }
  const auto found = device_runtime(said.type)->locate(tensor.data);
  if (!found) {
    const std::string fault = "it says that its memory is on " + to_string(said) + ", but " +
                              std::string(device_runtime(said.type)->name()) +
                              " knows of no memory at its address";
    throw ConversionRefused(
        "cannot take a " + std::string(source().traits.library->object) + " in: " + fault, {fault});
  }
  if (found->type == said.type && found->id != said.id) {
    const Stream told = std::exchange(source().stream, managed_stream(*found));
    order_streams(said, told, *found, source().stream);
    tensor.device = found->dl();
    if (crossing_.taken) {
      crossing_.taken.relabel(*found);
    }
  }
}

ManagedTensor Incoming::acquire() {
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
ManagedTensor Incoming::carry_by_library(const Plan& plan, const Capabilities& target,
                                         const Call& call) {
  Call viewing = call;
  viewing.policy = call.policy.with_copy(CopyRule::kWhenNeeded);
  if (kind_ == SourceKind::kTorch) {
    const Ref prepared = checked(torch_road()->prepare(object_, plan));
    return finish(Incoming(prepared.get(), Look{}), target, viewing);
  }
  const Ref copied = wrap(ask_for_host_copy(object_, crossing_));
  return finish(Incoming(copied.get(), Look{}), target, viewing);
}

ManagedTensor Incoming::finish(Incoming prepared, const Capabilities& target, const Call& call) {
  const Plan rest = plan(prepared.source(), target, call.policy, call.request);
  if (rest.is_refused()) {
    raise_refused(rest, prepared.source(), target, call.policy, call.request);
  }
  ManagedTensor tensor = prepared.carry(rest, target, call);
  tensor.mark_copied();
  return tensor;
}

}  // namespace dlbridge::python
