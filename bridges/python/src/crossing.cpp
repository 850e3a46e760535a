#include "crossing.hpp"

#include "doors/dlpack_door.hpp"

namespace dlbridge::python {
namespace {

// Whether a producer copies when asked is known only after asking. Throws as the conversion would.
void try_producer(const Door& door, const Plan& plan) {
  const Leg* leg = plan.leg_of(Who::kProducer);
  if (leg != nullptr && door.way->prepare == prepare_by_dlpack) {
    (void)ask_for_copy(door, *leg);
  }
}

}  // namespace

Ref explain_crossing(PyObject* object, const Target& target, const Call& call) {
  Door door(object, way_into_tensor(object),
            {.reader = target.reader, .stream = call.stream, .only_look = true});
  std::optional<Capabilities> changed;
  const Capabilities& capabilities = met(door, target, call, changed);
  const Plan decided =
      plan(door.source, capabilities, call.policy, call.request, device_runtimes());
  if (!decided.is_refused()) {
    try_producer(door, decided);
  }
  return plan_object(decided, door.source, capabilities, call.policy, call.request,
                     target.notes(decided));
}

}  // namespace dlbridge::python
