// What holds for every plan, whatever it was made from: one list for the property test and for the
// fuzzer. Written from the design's tables and not from plan.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "dlbridge/copy.hpp"
#include "dlbridge/plan.hpp"

namespace dlbridge::laws {

struct Question {
  const Source& source;
  const Capabilities& target;
  const Policy& policy;
  const Request& request;
};

/// Whether two elements are at the same place, found by visiting all of them: for small tensors.
inline bool really_overlaps(std::span<const std::int64_t> shape,
                            std::span<const std::int64_t> strides) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    return false;
  }
  std::vector<std::int64_t> places{0};
  for (std::size_t i = 0; i < shape.size(); ++i) {
    std::vector<std::int64_t> next;
    for (const auto place : places) {
      for (std::int64_t j = 0; j < shape[i]; ++j) {
        next.push_back(place + j * strides[i]);
      }
    }
    places = std::move(next);
  }
  return std::set<std::int64_t>(places.begin(), places.end()).size() != places.size();
}

inline std::int64_t elements_of(const DLTensor& tensor) {
  std::int64_t count = 1;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    count *= tensor.shape[i];
  }
  return count;
}

/// What the addresses of all elements can be a multiple of that lie side by side from address 0.
inline std::uintptr_t natural_alignment(DType dtype) {
  std::uintptr_t alignment = 1;
  while (dtype.element_bits() % static_cast<std::int64_t>(16 * alignment) == 0) {
    alignment *= 2;
  }
  return alignment;
}

/// What must never cross, whatever the policy says.
inline constexpr Conditions kNever{Condition::kQuantised,
                                   Condition::kNested,
                                   Condition::kMeta,
                                   Condition::kFake,
                                   Condition::kFunctorch,
                                   Condition::kFunctionalised,
                                   Condition::kWrapperSubclass,
                                   Condition::kDispatchSubclass,
                                   Condition::kFreedStorage,
                                   Condition::kNullData,
                                   Condition::kUninitialised,
                                   Condition::kMasked,
                                   Condition::kUnit,
                                   Condition::kInexpressibleDType,
                                   Condition::kPaddedSubByte};

/// Conditions under which shape and strides do not say where the values lie.
inline constexpr Conditions kWithoutStrides{Condition::kSparse,     Condition::kOpaqueLayout,
                                            Condition::kZeroTensor, Condition::kFractionalStrides,
                                            Condition::kScattered,  Condition::kLazy};

inline std::string broken_by_refusal(const Plan& plan) {
  if (!plan.noted.empty() || plan.steps != 0 || plan.leg_count != 0 || plan.view || plan.writable ||
      plan.bytes_copied != 0) {
    return "a refusal that does something";
  }
  std::string broken;
  plan.refused.for_each([&](Condition condition) {
    if (!plan.reasons.has(condition)) {
      broken = "a refusal without its reason";
    }
  });
  return broken;
}

// A step is taken only where its field allows it.
inline std::string broken_by_steps(const Plan& plan, const Question& asked) {
  const Policy& policy = asked.policy;
  const auto refuses = [&](Field field) { return policy[field] == Ruling::kRefuse; };
  const bool resolves =
      plan.has(Step::kResolveConj) || plan.has(Step::kResolveNeg) || plan.has(Step::kMaterialise);
  const bool moves = plan.has(Step::kCopyToHost) || plan.has(Step::kCopyToDevice);
  if (plan.has(Step::kDetach) && refuses(Field::kGrad)) {
    return "detached against the policy";
  }
  if (resolves && refuses(Field::kBits)) {
    return "bits resolved against the policy";
  }
  if (plan.has(Step::kDensify) && policy[Field::kLayout] != Ruling::kDensify) {
    return "densified against the policy";
  }
  if (asked.target.takes_as_constant && refuses(Field::kMutable) && !plan.itself &&
      !asked.source.traits.conditions.has(Condition::kReadOnly)) {
    return "memory that may change against the policy";
  }
  if (moves && refuses(Field::kDevice)) {
    return "moved against the policy";
  }
  const DType from(asked.source.tensor.dtype);
  if (plan.has(Step::kCast)) {
    if (!asked.request.dtype && policy[Field::kDType] != Ruling::kUpcast) {
      return "cast though nobody asked";
    }
    if (!can_cast(from, plan.dtype)) {
      return "a cast that cannot be made";
    }
  } else if (plan.dtype != from) {
    if (policy[Field::kDType] != Ruling::kBits ||
        plan.dtype.element_bits() != from.element_bits()) {
      return "another type without a cast and without asking for the bits";
    }
  }
  return {};
}

// Every step but those that only describe memory belongs to one leg, a view has no leg but for none
// at all, and the legs come in the order of those who carry them and end where the result is.
inline std::string broken_by_route(const Plan& plan) {
  if (plan.view != (plan.leg_count == 0)) {
    return "a view with legs, or a copy without";
  }
  std::uint32_t done = 0;
  for (std::size_t i = 0; i < plan.leg_count; ++i) {
    const Leg& leg = plan.route[i];
    const auto describing = (1U << static_cast<unsigned>(Step::kDetach));
    if ((done & leg.steps & ~describing) != 0) {
      return "a step that two legs do";
    }
    done |= leg.steps;
    if (i > 0 && leg.who <= plan.route[i - 1].who && leg.who != Who::kEngine) {
      return "legs out of order";
    }
  }
  for (const Step step : {Step::kDetach, Step::kMarkReadOnly}) {
    done |= plan.has(step) ? 1U << static_cast<unsigned>(step) : 0U;
  }
  if (plan.leg_count != 0 && done != plan.steps) {
    return "a step that no leg does";
  }
  if (plan.leg_count != 0 && plan.legs().back().to != plan.device) {
    return "a route that ends elsewhere";
  }
  return {};
}

// What comes out is what was asked for, and what the target can take.
inline std::string broken_by_result(const Plan& plan, const Question& asked) {
  const auto& [source, target, policy, request] = asked;
  if (source.traits.conditions.meets(kNever)) {
    return "what must never cross has crossed";
  }
  if (request.dtype && plan.dtype != *request.dtype) {
    return "another type than asked for";
  }
  const bool own = target.dtypes.contains(plan.dtype);
  const bool by_extension = target.extension_dtypes.contains(plan.dtype) &&
                            (request.dtype || policy[Field::kDType] == Ruling::kMlDTypes);
  if (!own && !by_extension) {
    return "a type that the target does not have";
  }
  if (!target.devices.contains(plan.device.type)) {
    return "a device that the target cannot use";
  }
  if (request.device && plan.device != *request.device &&
      !(request.device->type == kDLCPU && plan.device.host_accessible())) {
    return "another device than asked for";
  }
  if (source.tensor.ndim > target.max_dimensions || source.tensor.ndim < target.min_dimensions) {
    return "more or fewer dimensions than the target takes";
  }
  return {};
}

inline std::string broken_by_copy(const Plan& plan, const Question& asked) {
  if (asked.policy.copy() == CopyRule::kNever) {
    return "a copy against copy=False";
  }
  if (plan.has(Step::kMarkReadOnly) || plan.writable != asked.target.gives_writable) {
    return "a copy that is not as writable as its target's objects are";
  }
  if (plan.reasons.empty()) {
    return "a copy without a reason";
  }
  if (!plan.noted.empty()) {
    return "a note on a copy";
  }
  const std::int64_t bits = elements_of(asked.source.tensor) * plan.dtype.element_bits();
  if (plan.bytes_copied != (bits + 7) / 8) {
    return "bytes_copied is wrong";
  }
  if (asked.source.traits.conditions.has(Condition::kPaddedElements)) {
    return "a copy of padded elements";
  }
  return {};
}

// A view shares memory, so nobody may get to write what must not be written.
inline std::string broken_by_writing(const Question& asked) {
  const auto& [source, target, policy, request] = asked;
  const Conditions said = source.traits.conditions;
  const bool alias =
      target.readonly == ReadOnlySupport::kUnaware && policy[Field::kReadOnly] == Ruling::kAlias;
  if (alias) {
    return {};
  }
  if (said.has(Condition::kReadOnly)) {
    return "a writable view of read-only memory";
  }
  if (said.meets({Condition::kInGraph, Condition::kForwardDual}) &&
      policy[Field::kGrad] != Ruling::kDetachWritable) {
    return "a writable view of a tensor in a graph";
  }
  const auto ndim = static_cast<std::size_t>(source.tensor.ndim);
  if (!target.guards_overlap &&
      really_overlaps({source.tensor.shape, ndim}, {source.tensor.strides, ndim})) {
    return "a writable view of elements that share memory";
  }
  return {};
}

inline std::string broken_by_view(const Plan& plan, const Question& asked) {
  const auto& [source, target, policy, request] = asked;
  const Conditions said = source.traits.conditions;
  if (policy.copy() == CopyRule::kAlways || target.copies) {
    return "a view where a copy was asked for";
  }
  if (plan.bytes_copied != 0) {
    return "a view that copies";
  }
  for (const Step step :
       {Step::kResolveConj, Step::kResolveNeg, Step::kMaterialise, Step::kDensify, Step::kGather,
        Step::kCopyToHost, Step::kCopyToDevice, Step::kRepack, Step::kCast, Step::kSwapBytes}) {
    if (plan.has(step)) {
      return "a view with the step " + std::string(kStepNames[static_cast<std::size_t>(step)]);
    }
  }
  if (said.meets(kWithoutStrides) ||
      said.meets({Condition::kConjBit, Condition::kNegBit, Condition::kSwappedBytes,
                  Condition::kCopiesOut})) {
    return "a view of memory that does not hold the values";
  }
  if (said.has(Condition::kPaddedElements) && !target.carries_padding) {
    return "a view of padded elements for a target that does not know them";
  }
  const auto ndim = static_cast<std::size_t>(source.tensor.ndim);
  const std::span<const std::int64_t> shape(source.tensor.shape, ndim);
  const std::span<const std::int64_t> strides(source.tensor.strides, ndim);
  const bool packed = is_c_contiguous(source.tensor);
  if (request.c_order && !packed) {
    return "a strided view where C order was asked for";
  }
  if (request.writable && !plan.itself &&
      (!plan.writable || said.has(Condition::kReadOnly) || really_overlaps(shape, strides))) {
    return "a view that is not to be written to where writable memory was asked for";
  }
  if (target.strides == StrideSupport::kCompact && !packed) {
    return "a strided view for a target that takes none";
  }
  for (std::size_t i = 0; i < ndim; ++i) {
    if (target.strides != StrideSupport::kAny && !packed && shape[i] > 1 && strides[i] < 0) {
      return "a negative stride for a target that takes none";
    }
  }
  const auto address =
      reinterpret_cast<std::uintptr_t>(source.tensor.data) + source.tensor.byte_offset;
  const bool elements = elements_of(source.tensor) != 0;
  if (elements && address % static_cast<std::uintptr_t>(target.alignment) != 0) {
    return "a view at an address that the target cannot use";
  }
  if (elements && !target.reads_unaligned &&
      address % natural_alignment(source.tensor.dtype) != 0) {
    return "a view of elements that lie where the target cannot load them";
  }
  if (plan.noted.has(Condition::kMutable) !=
      (target.takes_as_constant && !said.has(Condition::kReadOnly) && !plan.itself)) {
    return "a view of memory that may change, and no note of it, or a note without";
  }
  if (policy[Field::kOverlap] != Ruling::kReadOnlyView && really_overlaps(shape, strides)) {
    return "a view of elements that share memory against the policy";
  }
  const bool never = target.readonly == ReadOnlySupport::kNever;
  if (never && said.has(Condition::kReadOnly)) {
    return "read-only memory for a target that cannot be told";
  }
  if (plan.has(Step::kMarkReadOnly) && plan.writable) {
    return "marked read-only and writable";
  }
  return plan.writable ? broken_by_writing(asked) : std::string();
}

// Plans in words: complete, without a hole that was not filled in, and the fix works.
inline std::string broken_by_words(const Plan& plan, const Question& asked) {
  const auto& [source, target, policy, request] = asked;
  const Explanation text = explain(plan, source, target, policy, request);
  if (text.message.empty() == plan.is_refused() || (!plan.is_refused() && !text.fix.empty())) {
    return "a message without a refusal, or none with one";
  }
  std::size_t noted = 0;
  plan.noted.for_each([&](Condition) { ++noted; });
  if (text.notes.size() < noted) {
    return "not every note is told";
  }
  std::size_t named = 0;
  (plan.is_refused() ? plan.refused : plan.reasons).for_each([&](Condition) { ++named; });
  if (text.reasons.size() != named) {
    return "not every reason is told";
  }
  std::vector<std::string> all = text.reasons;
  all.insert(all.end(), text.notes.begin(), text.notes.end());
  all.push_back(text.message);
  all.push_back(text.fix);
  for (const auto& each : all) {
    // C++ has braces of its own, as in Request{.dtype = ...}: a hole has a name.
    const std::size_t brace = each.find('{');
    if (brace != std::string::npos &&
        each.find_first_of("abcdefghijklmnopqrstuvwxyz", brace) == brace + 1) {
      return "a hole in the words: " + each;
    }
  }
  for (const auto& reason : text.reasons) {
    if (reason.empty()) {
      return "an empty reason";
    }
  }
  // What the call's own argument says of copies stands over the policy that the fix names.
  const bool stands =
      request.copy_was_argument && text.fix.find(" and the call without") == std::string::npos;
  const auto below = [stands, copy = policy.copy()](Policy of_fix) {
    return stands ? of_fix.with_copy(copy) : of_fix;
  };
  const struct {
    const char* words;
    Policy policy;
  } promises[] = {{"Policy::host() ", below(Policy::host())},
                  {"the call without CopyRule::kNever", policy.with_copy(request.policy_copy)},
                  {"a versioned capsule, or Policy::snapshot()", below(Policy::snapshot())}};
  for (const auto& promise : promises) {
    if (text.fix.starts_with(promise.words) &&
        dlbridge::plan(source, target, promise.policy, request).is_refused()) {
      return "a fix that does not work: " + text.fix;
    }
  }
  if (plan.is_refused()) {
    const ConversionRefused error = refusal(plan, source, target, policy, request);
    if (error.what() != text.message || error.reasons != text.reasons || error.fix != text.fix) {
      return "the exception says something else than the explanation";
    }
  }
  return {};
}

inline bool same(const Leg& a, const Leg& b) {
  return a.who == b.who && a.steps == b.steps && a.dtype == b.dtype && a.to == b.to;
}

inline bool same(const Plan& a, const Plan& b) {
  for (std::size_t i = 0; i < a.leg_count && a.leg_count == b.leg_count; ++i) {
    if (!same(a.route[i], b.route[i])) {
      return false;
    }
  }
  return a.reasons == b.reasons && a.refused == b.refused && a.noted == b.noted &&
         a.steps == b.steps && a.view == b.view && a.writable == b.writable && a.dtype == b.dtype &&
         a.device == b.device && a.leg_count == b.leg_count && a.itself == b.itself &&
         a.bytes_copied == b.bytes_copied;
}

/// The first law that the plan breaks, or an empty text. The source's tensor has to be sound and
/// small, with strides, and may lie nowhere.
inline std::string broken_law(const Plan& plan, const Question& asked) {
  const Plan again = dlbridge::plan(asked.source, asked.target, asked.policy, asked.request);
  if (!same(again, plan)) {
    return "the same question had two answers";
  }
  if (!same(plan,
            detail::plan_by_conditions(asked.source, asked.target, asked.policy, asked.request))) {
    return "the short cut for the common case decides otherwise than the conditions do";
  }
  std::string broken = broken_by_words(plan, asked);
  if (!broken.empty()) {
    return broken;
  }
  if (plan.is_refused()) {
    return broken_by_refusal(plan);
  }
  broken = broken_by_steps(plan, asked);
  if (broken.empty()) {
    broken = broken_by_route(plan);
  }
  if (broken.empty()) {
    broken = broken_by_result(plan, asked);
  }
  if (!broken.empty()) {
    return broken;
  }
  return plan.view ? broken_by_view(plan, asked) : broken_by_copy(plan, asked);
}

}  // namespace dlbridge::laws
