#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dlbridge/capabilities.hpp"
#include "dlbridge/condition.hpp"
#include "dlbridge/error.hpp"
#include "dlbridge/policy.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

/// What a conversion does on its way, in the order in which it is done.
enum class Step : std::uint8_t {
  kDetach,
  kResolveConj,
  kResolveNeg,
  kMaterialise,
  kDensify,
  kGather,
  kCopyToHost,
  kCopyToDevice,
  kRepack,
  kCast,
  kSwapBytes,
  kMarkReadOnly,
  kCopyOnWrite,
};

inline constexpr std::array<std::string_view, 13> kStepNames = {
    "detach",     "resolve conj",   "resolve neg",    "materialise", "densify",
    "gather",     "copy to host",   "copy to device", "repack",      "cast",
    "swap bytes", "mark read-only", "copy on write"};

/// What a cast made of values that the type asked for cannot hold. (Integers are refused.)
enum class CastWarning : std::uint8_t {
  kNone,
  kInvalid,   // NaN, infinity or a float out of range became some integer
  kOverflow,  // a finite number became infinity, or NaN where there is none
};

/// What the caller asks for beside the policy.
struct Request {
  std::optional<DType> dtype{};    // otherwise the source's own
  std::optional<Device> device{};  // otherwise where the source is, or where the target reads
  bool copy_was_argument = false;  // so that a fix can name what to leave out
  CopyRule policy_copy = CopyRule::kWhenNeeded;  // the policy's own rule, below the argument's
  bool takes_policy = true;        // so that a fix names none where the call has no such argument
  CastWarning* warning = nullptr;  // set where there is something to be warned of
  // The source is a leaf of a tree: `dtype` is for leaves of its own kind, and what holds no
  // numbers may stay as it is.
  bool leaf = false;
  bool c_order = false;   // the result is to be C-contiguous
  bool writable = false;  // the result is to be written to, which nobody else is harmed by

  [[nodiscard]] constexpr bool asks_for_cast(DType from) const {
    return dtype && *dtype != from && (!leaf || dtype->kind() == from.kind());
  }
};

/// Who carries a leg of the route.
enum class Who : std::uint8_t {
  kProducer,  // the source's library, asked to: what it makes is private to the conversion
  kEngine,    // one pass over host memory
  kRuntime,   // the same pass on a device, or on the way between it and the host
  kConsumer,  // the target's library, which moves or copies what it gets
};

/// A part of the route: who carries it, which steps it does, and what comes out of it where.
struct Leg {
  Who who = Who::kEngine;
  std::uint16_t steps = 0;
  DType dtype{};
  Device to{};

  [[nodiscard]] constexpr bool has(Step step) const {
    return ((steps >> static_cast<unsigned>(step)) & 1) != 0;
  }
  [[nodiscard]] constexpr bool does_only(Step step) const {
    return steps == 1U << static_cast<unsigned>(step);
  }
};

/// The decision on one conversion: its whole route, or its refusal. A plain value of a few words.
struct Plan {
  Conditions reasons;  // met on the way to a step or a refusal
  Conditions refused;  // of these, the ones that refuse
  Conditions noted;    // met in a view and left as they are, which its taker should know
  std::uint16_t steps = 0;
  std::uint8_t leg_count = 0;
  bool itself = false;   // the object is of the target's library, and nothing is asked of it
  bool view = true;      // the result shares the source's memory
  bool writable = true;  // the result may be written to
  DType dtype;           // of the result; other than the source's without a cast: the same bytes
  Device device;         // of the result
  std::int64_t alignment = 64;  // that a copy has to have, in bytes
  std::int64_t bytes_copied = 0;
  std::array<Leg, 3> route;  // the first `leg_count` of them; a view has none

  [[nodiscard]] constexpr std::span<const Leg> legs() const { return {route.data(), leg_count}; }
  /// The leg of that carrier, or null.
  [[nodiscard]] constexpr const Leg* leg_of(Who who) const {
    for (const Leg& leg : legs()) {
      if (leg.who == who) {
        return &leg;
      }
    }
    return nullptr;
  }
  [[nodiscard]] constexpr bool has(Step step) const {
    return ((steps >> static_cast<unsigned>(step)) & 1) != 0;
  }
  constexpr void add(Step step) {
    steps |= static_cast<std::uint16_t>(1 << static_cast<int>(step));
  }
  [[nodiscard]] constexpr bool is_refused() const { return !refused.empty(); }
  /// Whether the object could pass as it is.
  [[nodiscard]] constexpr bool empty() const { return steps == 0 && reasons.empty(); }
};

namespace detail {

// As takes_as_it_is(), of which no other type and no other place is asked.
[[nodiscard]] inline bool takes_where_it_is(const Capabilities& target, const DLTensor& packed,
                                            const Policy& policy) {
  const Device here(packed.device);
  return packed.data != nullptr && policy.copy() != CopyRule::kAlways && target.gives_writable &&
         !target.takes_as_constant && target.own_device == 0 && !target.copies &&
         packed.ndim >= target.min_dimensions && packed.ndim <= target.max_dimensions &&
         target.devices.contains(here.type) && (!target.wants_host || here.host_accessible()) &&
         target.dtypes.contains(packed.dtype) && is_aligned(packed, target);
}

}  // namespace detail

/// Whether plan() lets memory pass as it is that lies in C order and of which nothing is to be said
/// (no condition in its traits). The common case, told apart before the decision is made condition
/// by condition; here, so that a small crossing needs no call for it.
[[nodiscard]] inline bool takes_as_it_is(const Capabilities& target, const DLTensor& packed,
                                         const Policy& policy, const Request& request = {}) {
  return !request.dtype && !request.device && detail::takes_where_it_is(target, packed, policy);
}

/// What is seen of an object at a glance: that it takes a closer look, memory in C order of which
/// nothing is to be said, or such memory of what is in a graph.
enum class Glance : std::uint8_t { kCloser, kPlain, kInGraph };

/// The same of what was seen at a glance. What is in a graph passes where it is detached, and is
/// not written to.
[[nodiscard]] inline bool takes_as_it_is(Glance glance, const Capabilities& target,
                                         const DLTensor& packed, const Policy& policy,
                                         const Request& request) {
  const bool detached = glance == Glance::kInGraph && policy[Field::kGrad] == Ruling::kDetach &&
                        target.readonly == ReadOnlySupport::kHonours && !request.writable;
  return (glance == Glance::kPlain || detached) && takes_as_it_is(target, packed, policy, request);
}

/// Decides how, and whether, `source` becomes what `target` can take: the whole route, of at most
/// three legs. `runtimes`: the types of devices that a runtime serves. A pure function: touches no
/// object and no memory behind the tensor, and reads nothing but its arguments. Safe on any thread.
[[nodiscard]] Plan plan(const Source& source, const Capabilities& target, const Policy& policy,
                        const Request& request = {}, DeviceSet runtimes = device_runtimes());

namespace detail {
/// plan() without its short cut for the common case, which has to come to the same: for the
/// tests.
[[nodiscard]] Plan plan_by_conditions(const Source& source, const Capabilities& target,
                                      const Policy& policy, const Request& request,
                                      DeviceSet runtimes = device_runtimes());

}  // namespace detail

/// How advice is worded: as calls of the language that the caller writes. Of a C++ function that
/// Python calls, no argument is dlbridge's: the caller can open a block, or pass another object.
enum class Dialect : std::uint8_t { kCpp, kPython, kPythonArgument, kC };

/// A Plan in words.
struct Explanation {
  std::vector<std::string> steps;    // names, in order
  std::vector<std::string> reasons;  // one per condition: the step's, or the refusal's
  std::string fix;                   // the call that would work; empty where nothing would
  std::string message;               // the refusal as one sentence; empty when not refused
  std::vector<std::string> notes;    // the legs that are not the host's own, and what was noted
};

/// The plan in words, for these arguments of plan(). Takes nothing, and is safe on any thread;
/// throws std::bad_alloc.
[[nodiscard]] Explanation explain(const Plan& plan, const Source& source,
                                  const Capabilities& target, const Policy& policy,
                                  const Request& request = {}, Dialect dialect = Dialect::kCpp);

/// The refusal of a cast, in words.
[[nodiscard]] ConversionRefused refusal(const OutOfRange& met, Dialect dialect = Dialect::kCpp);

/// The refusal as the exception to throw.
[[nodiscard]] ConversionRefused refusal(const Plan& plan, const Source& source,
                                        const Capabilities& target, const Policy& policy,
                                        const Request& request = {},
                                        Dialect dialect = Dialect::kCpp);

}  // namespace dlbridge
