#include "crossing.hpp"

#include <string>

#include "doors/dlpack_door.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

// Whether a producer copies when asked is known only after asking. Throws as the conversion would.
void try_producer(const Door& door, const Plan& plan) {
  const Leg* leg = plan.leg_of(Who::kProducer);
  if (leg != nullptr && door.way->prepare == prepare_by_dlpack) {
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
  const Plan kept = plan(source, capabilities, call.policy, call.request, device_runtimes());
  return plan_object(kept, source, capabilities, call.policy, call.request, {});
}

Ref plan_of_opened(PyObject* object, const Way& way, const Target& target, const Call& call,
                   bool kept) {
  Door door(object, way,
            {.reader = target.reader,
             .stream = call.stream,
             .only_look = true,
             .never_copies = call.policy.copy() == CopyRule::kNever});
  std::optional<Capabilities> changed;
  const Capabilities& capabilities = met(door, target, call, changed);
  const Plan decided =
      plan(door.source, capabilities, call.policy, call.request, device_runtimes());
  if (kept && !decided.itself) {
    return plan_of_kept(object, call);
  }
  if (!decided.is_refused()) {
    try_producer(door, decided);
  }
  return plan_object(decided, door.source, capabilities, call.policy, call.request,
                     target.notes(decided));
}

}  // namespace

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
