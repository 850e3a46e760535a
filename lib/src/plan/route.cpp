#include "plan/route.hpp"

#include <algorithm>

namespace dlbridge::detail {
namespace {

// What only changes how memory is described.
constexpr std::uint16_t kDescribing = bits_of({Step::kDetach, Step::kMarkReadOnly});
// What a library makes itself lies packed, and has no bits that are still to be resolved.
constexpr std::uint16_t kPreparing =
    bits_of({Step::kDetach, Step::kResolveConj, Step::kResolveNeg, Step::kMaterialise,
             Step::kDensify, Step::kGather, Step::kRepack});

void add_leg(Plan& plan, Who who, int steps, DType dtype, Device to) {
  plan.route[plan.leg_count++] = {who, static_cast<std::uint16_t>(steps), dtype, to};
}

// Whether the copy that its library made is the one that is needed.
bool is_that_copy(const Plan& plan, const Traits& traits) {
  return traits.is_copy && !plan.reasons.has(Condition::kMisaligned) &&
         (plan.steps & ~kDescribing) == bits_of({Step::kRepack});
}

// Who makes the pass over memory, if anybody.
std::optional<Who> passer(const Plan& plan, const Traits& traits, DeviceSet runtimes,
                          std::optional<Who> mover, Device from, Device to) {
  if (is_that_copy(plan, traits)) {
    return Who::kProducer;
  }
  if (from.host_accessible() && to.host_accessible()) {
    return Who::kEngine;
  }
  if (runtimes.contains(from.host_accessible() ? to.type : from.type)) {
    return Who::kRuntime;
  }
  if (mover == Who::kConsumer && traits.of_target) {
    return Who::kConsumer;  // it knows its own objects, bits and all
  }
  // What it makes is plain, and of the type that it has. Another such copy would be no better.
  const bool makes_it =
      traits.copies_there && traits.can_prepare && !traits.is_copy && !plan.has(Step::kCast);
  return makes_it ? std::optional(Who::kProducer) : std::nullopt;
}

}  // namespace

std::optional<Who> mover(const Source& source, const Capabilities& target, DeviceSet runtimes,
                         Device there) {
  const Device here(source.tensor.device);
  const bool to_host = there.type == kDLCPU;
  // Runtimes copy to and from the host; from one device to another is the libraries' own way.
  const bool host_at_one_end = to_host || here.host_accessible();
  const bool ordered = here.host_accessible() || source.traits.stream_known;
  if (host_at_one_end && ordered && runtimes.contains(to_host ? here.type : there.type)) {
    return Who::kRuntime;
  }
  if (to_host) {
    const bool brings_it = source.traits.copies_to_host && source.traits.can_prepare;
    return brings_it ? std::optional(Who::kProducer) : std::nullopt;
  }
  if (there.host_accessible()) {
    return std::nullopt;  // pinned or managed memory is no device that a library moves to
  }
  const bool takes_home = target.own_device != 0 && here.host_accessible();
  const bool moves = target.copies_to_device || takes_home;
  return moves ? std::optional(Who::kConsumer) : std::nullopt;
}

bool lay_legs(Plan& plan, const Source& source, const Capabilities& target, DeviceSet runtimes,
              std::optional<Who> mover, std::uint16_t of_consumer) {
  Device at(source.tensor.device);
  auto left = static_cast<std::uint16_t>(plan.steps & ~kDescribing & ~of_consumer);
  const std::int64_t needed = needed_alignment(target, plan.dtype);
  const bool made = source.traits.conditions.has(Condition::kLazy) || source.traits.is_copy;
  plan.alignment = made ? needed : std::max(plan.alignment, needed);  // made where its maker wants
  if (plan.has(Step::kDensify) || plan.has(Step::kGather) || mover == Who::kProducer) {
    const bool moves = mover == Who::kProducer;
    const int its = (kPreparing | (moves ? bits_of({Step::kCopyToHost}) : 0)) & ~of_consumer;
    at = moves ? plan.device : at;
    add_leg(plan, Who::kProducer, plan.steps & its, source.tensor.dtype, at);
    left &= static_cast<std::uint16_t>(~its);
  }
  if (left != 0) {
    const Device goal = mover == Who::kRuntime ? plan.device : at;
    const auto who = passer(plan, source.traits, runtimes, mover, at, goal);
    if (!who || (*who == Who::kProducer && plan.leg_count != 0)) {
      return false;  // what a library makes, it makes at once
    }
    if (*who == Who::kConsumer) {
      of_consumer |= left;
    } else {
      add_leg(plan, *who, left, plan.dtype, goal);
    }
  }
  if (of_consumer != 0 || target.copies) {
    add_leg(plan, Who::kConsumer, of_consumer, plan.dtype, plan.device);
  }
  return true;
}

}  // namespace dlbridge::detail
