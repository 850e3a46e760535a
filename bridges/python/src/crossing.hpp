#pragma once

// The one way through: open the door, plan, tell the ledger, carry the legs, deliver.

#include "call.hpp"
#include "doors/door.hpp"
#include "ledger.hpp"
#include "targets/target.hpp"
#include "torch/torch_road.hpp"
#include "trees.hpp"

namespace dlbridge::python {

/// What the target can take of what was opened.
template <typename AnyTarget>
[[nodiscard]] inline const Capabilities& met(Door& door, const AnyTarget& target,
                                             const Call& call) {
  if (call.request.device) [[unlikely]] {
    (void)runtime_for(call.request.device->type);
  }
  door.source.traits.of_target = target.owns(door);
  const Capabilities& capabilities = target.capabilities(door, call);
  door.adapt(capabilities);
  return capabilities;
}

/// The Plan in the words of whoever gets the result, who may know nothing of what was read.
template <typename AnyTarget>
[[nodiscard]] Plan as_told(Plan decided, const Door& door, const AnyTarget& target) {
  decided.itself = decided.itself && target.comes_back(door);
  return decided;
}

/// What is refused as sparse crosses part by part: null where its library or the target has no
/// such parts, or where the caller wants it dense.
[[nodiscard]] Ref cross_by_parts(const Plan& decided, const Door& door, const Target& target,
                                 const Capabilities& capabilities, const Call& call);

/// The common case, told apart before a door is opened and a Plan made: what its library says at a
/// glance to be plain, if the target takes it as it is. Anything else takes a closer look, as where
/// a ledger is to be told of the Plan.
template <bool kRecorded, typename AnyTarget>
[[nodiscard, gnu::always_inline]] inline Glance taken_at_a_glance(PyObject* object, const Way& way,
                                                                  const AnyTarget& target,
                                                                  const Call& call,
                                                                  DLTensor& tensor, Lease& lease) {
  if (way.plain == nullptr || open_ledgers != 0) {
    return Glance::kCloser;
  }
  const Capabilities* capabilities = target.at_a_glance(way);
  if (capabilities == nullptr) {
    return Glance::kCloser;
  }
  const Glance glance = way.plain(object, tensor);
  if (!takes_as_it_is(glance, *capabilities, tensor, call.policy, call.request)) {
    return Glance::kCloser;
  }
  if constexpr (requires { target.fits(tensor, Device()); }) {
    if (!target.fits(tensor, tensor.device)) {
      return Glance::kCloser;
    }
  }
  lease = way.lease(object, tensor);  // throws where its memory was closed: then nothing crosses
  if constexpr (kRecorded) {
    count_view(target.towards);
  }
  return glance;
}

/// cross() of what takes a closer look.
template <bool kRecorded, typename AnyTarget>
[[nodiscard]] inline auto cross_by_door(PyObject* object, const Way& way, const AnyTarget& target,
                                        const Call& call) {
  Door door(object, way,
            {.reader = target.reader,
             .stream = call.stream ? &*call.stream : nullptr,
             .never_copies = call.policy.copy() == CopyRule::kNever});
  const Capabilities& capabilities = met(door, target, call);
  const Plan decided = plan(door.source, capabilities, call.policy, call.request);
  if constexpr (requires { target.leaves_to_another(door, decided); }) {
    if (target.leaves_to_another(door, decided)) {
      return target.itself(door, decided);
    }
  }
  if (decided.is_refused()) [[unlikely]] {
    if constexpr (std::is_convertible_v<const AnyTarget&, const Target&>) {
      if (Ref made = cross_by_parts(decided, door, target, capabilities, call)) {
        return made;
      }
    }
    raise_refused(decided, door.source, capabilities, call.policy, call.request, target.dialect);
  }
  if (decided.itself) {
    if constexpr (kRecorded) {
      if (!decided.view || !target.comes_back(door)) [[unlikely]] {
        record(target.towards, as_told(decided, door, target), door.source, capabilities,
               call.policy, call.request);
        return counted(target.towards, decided, [&] { return target.itself(door, decided); });
      }
    }
    return target.itself(door, decided);
  }
  if (decided.reasons.has(Condition::kTraced) && !torch_road()->warn_of_trace()) [[unlikely]] {
    throw PythonError();
  }
  const auto deliver = [&] {
    return detail::carried_for(capabilities, [&] { return target.deliver(door, decided, call); });
  };
  if constexpr (kRecorded) {
    record(target.towards, decided, door.source, capabilities, call.policy, call.request);
    return counted(target.towards, decided, deliver);
  } else {
    return deliver();
  }
}

/// The object on its way through `way` to `target`. Throws PythonError with the refusal set, and
/// what the libraries at either end raise. What other libraries read out of a ManagedTensor by
/// themselves is not recorded.
template <bool kRecorded = true, typename AnyTarget>
[[nodiscard]] inline auto cross(PyObject* object, const Way& way, const AnyTarget& target,
                                const Call& call) {
  if constexpr (std::is_same_v<AnyTarget, Target>) {
    if (target.keeps(object, way, call)) {
      return Ref::borrow(object);
    }
  }
  DLTensor tensor;
  Lease lease;
  if (const Glance glance = taken_at_a_glance<kRecorded>(object, way, target, call, tensor, lease);
      glance != Glance::kCloser) {
    return target.made_of(ManagedTensor::own_trusted(tensor, detail::flags_of(glance), lease));
  }
  return cross_by_door<kRecorded>(object, way, target, call);
}

/// The same for whatever a caller gives: an object, or a tree of them.
template <typename AnyTarget>
[[nodiscard]] inline Ref cross(PyObject* object, const AnyTarget& target, const Call& call) {
  const Way* way = way_into(object);
  if (way == nullptr) [[unlikely]] {
    Call of_leaf = call;
    of_leaf.request.leaf = true;
    if (Ref tree = map_tree(object, [&](PyObject* leaf) { return cross(leaf, target, of_leaf); })) {
      return tree;
    }
    way = &kRegisteredWay;
  }
  return cross(object, *way, target, call);
}

/// The arrays of a tree cross, and its other leaves stay. One wait for all that comes from devices.
/// `met`, a dict, is told of each array, by its id, with what became of it.
[[nodiscard]] Ref cross_arrays(PyObject* tree, const Target& target, const Call& call,
                               PyObject* met);

/// The Plan of a crossing, which stops there.
[[nodiscard]] Ref explain_crossing(PyObject* object, const Target& target, const Call& call);

}  // namespace dlbridge::python
