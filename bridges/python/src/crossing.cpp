#include "crossing.hpp"

#include <string>
#include <unordered_map>

#include "doors/dlpack_door.hpp"
#include "registry.hpp"
#include "targets/pending_target.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute taken_apart("dlbridge._parts", "taken_apart");

// The object taken apart, and what `pass` makes of each part. A type is asked for of the values,
// which come first.
struct Apart {
  Ref object;
  Ref passed;
};

template <typename Pass>
Apart pass_parts(const Plan& decided, const Door& door, const Capabilities& target,
                 const Call& call, Pass&& pass) {
  if (!decided.refused.has(Condition::kSparse) || call.request.c_order ||
      call.policy[Field::kLayout] != Ruling::kRefuse) {
    return {};
  }
  Apart apart;
  const Ref name = text_object(std::string(target.name));
  const auto take_apart = [&](PyObject* whole) {
    apart.object =
        checked(PyObject_CallFunctionObjArgs(taken_apart.get(), whole, name.get(), nullptr));
    return apart.object.get() != Py_None;
  };
  // Of what a row reads only where it says no more of the object: the parts would not know it.
  const bool says_no_more = door.source.traits.conditions == Conditions{Condition::kSparse};
  if (!take_apart(door.object) && (!says_no_more || !take_apart(door.readable))) {
    return {};
  }
  const Ref arrays = checked(PyObject_GetAttrString(apart.object.get(), "arrays"));
  apart.passed = checked(PyTuple_New(PyTuple_GET_SIZE(arrays.get())));
  Call asked = call;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arrays.get()); ++i) {
    Ref passed = pass(PyTuple_GET_ITEM(arrays.get(), i), asked);
    PyTuple_SET_ITEM(apart.passed.get(), i, passed.release());
    asked.request.dtype.reset();
    asked.request.c_order = true;  // no library takes indices with gaps
  }
  return apart;
}

// Whether a producer copies when asked is known only after asking. Throws as the conversion would.
void try_producer(const Door& door, const Plan& plan) {
  const Leg* leg = plan.leg_of(Who::kProducer);
  if (leg != nullptr && !detail::made_already(door.source, *leg) &&
      door.way->prepare == prepare_by_dlpack) {
    (void)ask_for_copy(door, *leg);
  }
}

// Of an object that comes back without a look into it, and of which a look tells nothing.
Ref plan_of_kept(PyObject* object, const Call& call) {
  const std::string name = Py_TYPE(object)->tp_name;
  const Library library{.name = name, .object = name};
  Source source;
  source.traits.library = &library;
  source.traits.of_target = true;
  const LibraryRow* row = library_known_of(Py_TYPE(object));
  source.traits.conditions.add_if(row != nullptr && row->immutable, Condition::kReadOnly);
  const Capabilities capabilities;
  const Plan kept = plan(source, capabilities, call.policy, call.request);
  return plan_object(kept, source, capabilities, call.policy, call.request, {});
}

Ref plan_of_opened(PyObject* object, const Way& way, const Target& target, const Call& call,
                   bool kept) {
  Door door(object, way,
            {.reader = target.reader,
             .stream = call.stream ? &*call.stream : nullptr,
             .never_copies = call.policy.copy() == CopyRule::kNever});
  const Capabilities& capabilities = met(door, target, call);
  const Plan decided = plan(door.source, capabilities, call.policy, call.request);
  if (kept && !decided.itself) {
    return plan_of_kept(object, call);
  }
  if (!decided.is_refused()) {
    try_producer(door, decided);
  }
  Ref told = plan_object(as_told(decided, door, target), door.source, capabilities, call.policy,
                         call.request, target.notes(decided));
  const Apart apart = pass_parts(
      decided, door, capabilities, call,
      [&](PyObject* part, const Call& asked) { return explain_crossing(part, target, asked); });
  return apart.object ? checked(PyObject_CallMethod(apart.object.get(), "explained", "OO",
                                                    told.get(), apart.passed.get()))
                      : std::move(told);
}

void tell(PyObject* met, PyObject* array, const Ref& became) {
  const Ref id = checked(PyLong_FromVoidPtr(array));
  const Ref pair = checked(PyTuple_Pack(2, array, became.get()));
  checked(PyDict_SetItem(met, id.get(), pair.get()));
}

}  // namespace

Ref cross_by_parts(const Plan& decided, const Door& door, const Target& target,
                   const Capabilities& capabilities, const Call& call) {
  const Apart apart =
      pass_parts(decided, door, capabilities, call,
                 [&](PyObject* part, const Call& asked) { return cross(part, target, asked); });
  return apart.object ? checked(PyObject_CallMethod(apart.object.get(), "together", "(O)",
                                                    apart.passed.get()))
                      : Ref();
}

Ref cross_arrays(PyObject* tree, const Target& target, const Call& call, PyObject* met) {
  const PendingTarget begins(Py_None, Gives::kPendingIfBegun);
  const bool to_host = &target == &kToNumPy;
  const Target& through = to_host ? static_cast<const Target&>(begins) : target;
  std::unordered_map<PyObject*, PyObject*> begun;  // arrays, by what they are waited for by
  Ref crossed = map_leaves(tree, [&](PyObject* leaf) {
    if (!is_array(leaf)) {
      return Ref::borrow(leaf);
    }
    Ref became = cross(leaf, through, call);
    tell(met, leaf, became);
    if (is_pending(became.get())) {
      begun.emplace(became.get(), leaf);
    }
    return became;
  });
  if (begun.empty()) {
    return crossed;
  }
  return map_leaves(crossed.get(), [&](PyObject* leaf) {
    const auto found = begun.find(leaf);
    if (found == begun.end()) {
      return Ref::borrow(leaf);
    }
    Ref arrived = checked(PyObject_CallMethod(leaf, "result", nullptr));
    tell(met, found->second, arrived);
    return arrived;
  });
}

Ref explain_crossing(PyObject* object, const Target& target, const Call& call) {
  const Way& way = way_into_tensor(object);
  const bool kept = target.keeps(object, way, call);
  try {
    return plan_of_opened(object, way, target, call, kept);
  } catch (...) {
    if (!kept) {
      throw;
    }
    forget_error();
  }
  return plan_of_kept(object, call);
}

}  // namespace dlbridge::python
