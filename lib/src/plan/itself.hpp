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
         (!request.c_order || (is_c_contiguous(tensor) && !said.meets(kOutOfOrder))) &&
         (!request.writable || (!said.meets(kNotToBeWritten) &&
                                (is_c_contiguous(tensor) || !overlaps_itself(tensor)))) &&
         !said.meets(kBesideValues);
}

// Texts, objects, dates and structs are nothing to the target of a tree: they stay what they are.
// Of the target's own library, something was asked of them.
inline bool stays_beside_numbers(const Source& source, const Policy& policy,
                                 const Request& request) {
  return request.leaf && source.traits.no_numbers && !source.traits.of_target &&
         policy[Field::kDType] != Ruling::kRefuse && !source.traits.conditions.meets(kBesideValues);
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

}  // namespace dlbridge::detail
