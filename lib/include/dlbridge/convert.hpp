#pragma once

#include <concepts>
#include <utility>

#include "dlbridge/capabilities.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/policy.hpp"
#include "dlbridge/source.hpp"
#include "dlbridge/transfer.hpp"

namespace dlbridge {

/// A bridge out of a library. `Object` is its tensor type.
///  - describe(object, source): fills in what plan() has to know; takes nothing from the object and
///    throws nothing that a plan can refuse.
///  - acquire(object, source): a view that keeps the memory valid whatever becomes of the object;
///    it may correct the source's data pointer.
template <typename Bridge>
concept Producer = requires(const typename Bridge::Object& object, Source& source) {
  { Bridge::describe(object, source) } -> std::same_as<void>;
  { Bridge::acquire(object, source) } -> std::same_as<ManagedTensor>;
};

/// A producer that can do what only its library can: densify, bring memory to the host. The result
/// is private to the conversion.
template <typename Bridge>
concept Preparer = Producer<Bridge> &&
    requires(const typename Bridge::Object& object, const Plan& plan) {
  { Bridge::prepare(object, plan) } -> std::same_as<typename Bridge::Object>;
};

/// A producer that knows its common case at a glance.
///  - plain(object, tensor): whether it is host memory in C order, with elements, of which
///    describe() would say nothing: no condition, nothing to wait for. Fills `tensor`, which
///    borrows from the object, only then, and just as describe() would.
///  - lease(object, tensor): what acquire() would hold; it may correct the data pointer.
template <typename Bridge>
concept PlainProducer = Producer<Bridge> &&
    requires(const typename Bridge::Object& object, DLTensor& tensor) {
  { Bridge::plain(object, tensor) } -> std::same_as<bool>;
  { Bridge::lease(object, tensor) } -> std::same_as<Lease>;
};

/// A bridge into a library.
///  - capabilities(source): what it can take, as data.
///  - deliver(tensor): the library's object over that memory; throws with the tensor released.
template <typename Bridge>
concept Consumer = requires(ManagedTensor tensor, const Source& source) {
  { Bridge::capabilities(source) } -> std::convertible_to<const Capabilities&>;
  { Bridge::deliver(std::move(tensor)) } -> std::same_as<typename Bridge::Object>;
};

/// Whether the plan has a step that only the source's library can carry out.
[[nodiscard]] constexpr bool needs_library(const Plan& plan) {
  return plan.has(Step::kDensify) || plan.carrier == Carrier::kProducer;
}

/// The managed tensor that the plan makes of the object: on the host it is there, on a device it is
/// ordered on managed_stream().
template <Producer From>
[[nodiscard]] ManagedTensor produce(const typename From::Object& object, Source& source,
                                    const Plan& plan) {
  const Device device(source.tensor.device);
  if (device.type != kDLCPU && device.host_accessible()) [[unlikely]] {
    wait_for_host_memory(source);
  }
  if (!plan.view) {
    return carry_out(plan, source);
  }
  ManagedTensor view = From::acquire(object, source);
  carry_out_view(plan, view);
  if (!device.host_accessible()) [[unlikely]] {
    order_streams(device, source.stream, managed_stream(device));
  }
  return view;
}

namespace detail {

// As produce(), for a plan that may have steps of the source's library in it.
template <Producer From>
[[nodiscard]] ManagedTensor produce_prepared(const typename From::Object& object, Source& source,
                                             const Plan& decided, const Capabilities& target,
                                             const Policy& policy, const Request& request) {
  if constexpr (Preparer<From>) {
    if (needs_library(decided)) {
      const typename From::Object prepared = From::prepare(object, decided);
      Source dense;
      From::describe(prepared, dense);
      dense.traits.conditions.remove(Condition::kInGraph);
      dense.traits.conditions.remove(Condition::kForwardDual);
      // What was prepared is private: a view of it is the copy that the plan promised.
      const Policy viewing = policy.with_copy(CopyRule::kWhenNeeded);
      const Plan rest = plan(dense, target, viewing, request);
      if (rest.is_refused()) {
        throw refusal(rest, dense, target, viewing, request);
      }
      ManagedTensor tensor = produce<From>(prepared, dense, rest);
      tensor.mark_copied();
      return tensor;
    }
  }
  return produce<From>(object, source, decided);
}

// As to_managed(), whatever the object is like. Apart, so that the common case stays short.
template <Producer From>
[[nodiscard]] ManagedTensor to_managed_by_plan(const typename From::Object& object,
                                               const Capabilities& target, const Policy& policy,
                                               const Request& request) {
  Source source;
  From::describe(object, source);
  const Plan decided = plan(source, target, policy, request);
  if (decided.is_refused()) {
    throw refusal(decided, source, target, policy, request);
  }
  return produce_prepared<From>(object, source, decided, target, policy, request);
}

}  // namespace detail

/// The object as a managed tensor that `target` can take, under `policy`. Throws ConversionRefused
/// with nothing taken; on success the result keeps the memory valid by itself.
template <Producer From>
[[nodiscard]] ManagedTensor to_managed(const typename From::Object& object,
                                       const Capabilities& target, const Policy& policy = {},
                                       const Request& request = {}) {
  if constexpr (PlainProducer<From>) {
    DLTensor tensor;
    if (From::plain(object, tensor) && takes_as_it_is(target, tensor, policy, request)) [[likely]] {
      const Lease held = From::lease(object, tensor);
      return ManagedTensor::own_trusted(tensor, 0, held);
    }
  }
  return detail::to_managed_by_plan<From>(object, target, policy, request);
}

/// What a managed tensor itself can carry: everything that DLPack can.
[[nodiscard]] const Capabilities& managed_tensor_capabilities() noexcept;

/// Takes `object` out of one library and into another, under `policy`.
/// Throws ConversionRefused; whatever the bridges throw comes through.
template <Producer From, Consumer To>
[[nodiscard]] typename To::Object convert(const typename From::Object& object,
                                          const Policy& policy = {}, const Request& request = {}) {
  Source source;
  From::describe(object, source);
  const Capabilities& target = To::capabilities(source);
  const Plan decided = plan(source, target, policy, request);
  if (decided.is_refused()) {
    throw refusal(decided, source, target, policy, request);
  }
  return To::deliver(
      detail::produce_prepared<From>(object, source, decided, target, policy, request));
}

}  // namespace dlbridge
