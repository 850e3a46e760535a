#pragma once

// What passes as the object that it is, without a decision on each of its conditions.

#include "dlbridge/plan.hpp"
#include "tensor/layout.hpp"

namespace dlbridge::detail {

inline constexpr Conditions kBesideValues{Condition::kMasked, Condition::kUnit};

// What is no C order whatever its strides in elements say, and what nobody may write to as it is.
inline constexpr Conditions kOutOfOrder{Condition::kFractionalStrides, Condition::kSparse,
                                        Condition::kOpaqueLayout, Condition::kNested};
inline constexpr Conditions kNotToBeWritten{Condition::kReadOnly, Condition::kInGraph,
                                            Condition::kForwardDual};

inline bool is_in_c_order(const Source& source) {
  return is_c_contiguous(source.tensor) && !source.traits.conditions.meets(kOutOfOrder);
}

// Texts and the like that the target's library will hold as soon as there is an array of them.
inline bool is_yet_to_be_copied(const Source& source) {
  return source.traits.conditions.has(Condition::kLazy) && source.traits.own_copy_bytes >= 0;
}

// An object of the target's own library of which nothing is asked stays itself, with its graph, its
// layout and its values, whatever they are. What lies beside its values, as a mask does, does not
// count among them. Whoever asks for a type asks for the machine's own byte order.
inline bool stays_itself(const Source& source, const Policy& policy, const Request& request) {
  const DLTensor& tensor = source.tensor;
  const Conditions said = source.traits.conditions;
  return source.traits.of_target && policy.copy() != CopyRule::kAlways &&
         !request.asks_for_cast(tensor.dtype) &&
         (!request.dtype || !said.has(Condition::kSwappedBytes)) &&
         (!request.device || *request.device == Device(tensor.device)) &&
         (!request.c_order || is_in_c_order(source)) &&
         (!request.writable || (!said.meets(kNotToBeWritten) &&
                                (is_c_contiguous(tensor) || !overlaps_itself(tensor)))) &&
         !said.meets(kBesideValues) && !is_yet_to_be_copied(source);
}

// Texts, objects, dates and structs are nothing to the target of a tree: they stay what they are.
// Of the target's own library, something was asked of them.
inline bool stays_beside_numbers(const Source& source, const Policy& policy,
                                 const Request& request) {
  return request.leaf && source.traits.no_numbers && !source.traits.of_target &&
         policy[Field::kDType] != Ruling::kRefuse && !source.traits.conditions.meets(kBesideValues);
}

// What no managed tensor can hold is copied by its own library, if at all.
inline bool its_library_copies(const Source& source, const Request& request) {
  return source.traits.of_target && source.traits.own_copy_bytes >= 0 && !request.dtype &&
         (!request.device || *request.device == Device(source.tensor.device)) &&
         !source.traits.conditions.meets(kBesideValues);
}

// Apart, so that the Plan is made where the caller wants it: it is large to copy.
inline Plan as_it_is(const Source& source, const Capabilities& target, bool itself) {
  Plan plan;
  plan.dtype = source.tensor.dtype;
  plan.device = source.tensor.device;
  plan.itself = itself;
  plan.writable = target.gives_writable && !source.traits.conditions.has(Condition::kReadOnly);
  return plan;
}

// Of an object that does not stay itself as it is.
inline Plan own_copy(const Source& source, const Capabilities& target, const Policy& policy,
                     const Request& request) {
  const bool asked = policy.copy() == CopyRule::kAlways;
  const bool in_order = !request.c_order || is_in_c_order(source);
  const bool lazy = source.traits.conditions.has(Condition::kLazy);
  const Condition why = lazy        ? Condition::kLazy
                        : asked     ? Condition::kCopyAsked
                        : !in_order ? Condition::kOrderAsked
                                    : Condition::kWritableAsked;
  Plan plan = as_it_is(source, target, true);
  plan.view = false;
  plan.reasons.add(why);
  if (policy.copy() == CopyRule::kNever) {
    plan.refused.add(why);
    plan.itself = plan.writable = false;
    return plan;
  }
  plan.add(lazy ? Step::kGather : Step::kRepack);
  plan.writable = target.gives_writable;
  plan.bytes_copied = source.traits.own_copy_bytes;
  return plan;
}

// What is no tensor yet, but a promise of one or several: what else holds is seen when it is one.
inline constexpr Conditions kNoTensor{Condition::kUninitialised, Condition::kMixedTypes};

inline Plan refused_alone(const Source& source) {
  Plan plan;
  plan.dtype = source.tensor.dtype;
  plan.device = source.tensor.device;
  plan.reasons = plan.refused = source.traits.conditions & kNoTensor;
  plan.view = plan.writable = false;
  return plan;
}

}  // namespace dlbridge::detail
