#include "targets/argument_target.hpp"

#include "crossing.hpp"

namespace dlbridge::python {
namespace {

std::string in_words(DType dtype, std::int32_t ndim) {
  std::string text = dtype.bits == 0 ? std::string("any dtype") : to_string(dtype);
  if (ndim >= 0) {
    text += " of " + std::to_string(ndim) + (ndim == 1 ? " dimension" : " dimensions");
  }
  return text;
}

Call call_for(const Parameter& parameter) {
  Call call;
  if (parameter.policy) [[unlikely]] {
    call.policy = *parameter.policy;
    call.request.takes_policy = false;
  } else if (any_block_open()) [[unlikely]] {
    call = read_call({});
  }
  if (parameter.device || parameter.cast_to || parameter.c_order) [[unlikely]] {
    call.request.dtype = parameter.cast_to;
    call.request.device = parameter.device;
    call.request.c_order = parameter.c_order;
  }
  if (parameter.in_place) {
    // What is written to a private copy would be lost.
    call.request.writable = true;
    call.request.copy_was_argument = true;
    call.request.policy_copy = CopyRule::kWhenNeeded;
    call.policy = call.policy.with_copy(CopyRule::kNever);
  }
  return call;
}

}  // namespace

void ArgumentTarget::require_shared(Door& door) {
  // Of a capsule or a ManagedTensor that holds a copy its caller has the memory too, or gave it up.
  if (door.way != &kCapsuleWay && door.way != &kManagedTensorWay &&
      (door.taken.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0) {
    door.source.traits.conditions.add(Condition::kCopiesOut);
  }
}

void ArgumentTarget::raise_mismatch(const Door& door, const Plan& plan) const {
  const DLTensor& tensor = door.source.tensor;
  raise(PyExc_TypeError, "expected a tensor of " + in_words(parameter.dtype, parameter.ndim) +
                             (parameter.on_device ? " on a device" : "") + ", not a " +
                             std::string(door.source.traits.words().object) + " of " +
                             in_words(tensor.dtype, tensor.ndim) + " on " + to_string(plan.device));
}

ManagedTensor argument(PyObject* object, const Parameter& parameter, Matching matching) {
  const ArgumentTarget target{parameter, matching};
  const Call call = call_for(parameter);
  const Way& way = way_into_tensor(object);
  if (&way == &kCapsuleWay && matching != Matching::kAlone) [[unlikely]] {
    // Another overload could not take it any more.
    Door door(object, way, {.reader = target.reader, .stream = {}, .only_look = true});
    std::optional<Capabilities> changed;
    const Capabilities& capabilities = met(door, target, call, changed);
    if (target.leaves_to_another(
            door, plan(door.source, capabilities, call.policy, call.request, device_runtimes()))) {
      return {};
    }
  }
  try {
    return cross(object, way, target, call);
  } catch (const PythonError&) {
    if (&way != &kRegisteredWay || matching == Matching::kAlone ||
        PyErr_ExceptionMatches(PyExc_TypeError) == 0) {
      throw;
    }
    PyErr_Clear();  // it is no tensor
    return {};
  }
}

}  // namespace dlbridge::python
