#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>

#include "dlbridge/capabilities.hpp"
#include "dlbridge/carry.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/policy.hpp"
#include "dlbridge/source.hpp"
#include "dlbridge/streams.hpp"

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

/// A producer that can carry a leg: what only its library can, as to densify and to bring memory to
/// the host.
///  - prepare(object, leg): a new object, private to the conversion, where the leg ends, of which
///    describe() has nothing to say.
template <typename Bridge>
concept Preparer = Producer<Bridge> &&
    requires(const typename Bridge::Object& object, const Leg& leg) {
  { Bridge::prepare(object, leg) } -> std::same_as<typename Bridge::Object>;
};

/// A producer that knows its common case at a glance.
///  - plain(object, tensor): whether it is host memory in C order, with elements, of which
///    describe() would say nothing, or that it is in a graph: no other condition, nothing to wait
///    for. Fills `tensor`, which borrows from the object, only then, and just as describe() would.
///  - lease(object, tensor): what acquire() would hold; it may correct the data pointer.
template <typename Bridge>
concept PlainProducer = Producer<Bridge> &&
    requires(const typename Bridge::Object& object, DLTensor& tensor) {
  { Bridge::plain(object, tensor) } -> std::same_as<Glance>;
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

namespace detail {

// What a bridge lacks, in words, where it is used: a concept says only that it is not met.
template <typename Bridge>
constexpr void require_producer() {
  static_assert(
      requires { typename Bridge::Object; },
      "a bridge names the type of its library's tensors: using Object = ...;");
  static_assert(
      requires(const typename Bridge::Object& object, Source& source) {
        { Bridge::describe(object, source) } -> std::same_as<void>;
      },
      "a bridge to convert from has: static void describe(const Object&, dlbridge::Source&)");
  static_assert(
      requires(const typename Bridge::Object& object, Source& source) {
        { Bridge::acquire(object, source) } -> std::same_as<ManagedTensor>;
      },
      "a bridge to convert from has: static dlbridge::ManagedTensor acquire(const Object&, const "
      "dlbridge::Source&)");
  static_assert(
      PlainProducer<Bridge> || !requires { &Bridge::plain; },
      "a bridge that knows its common case at a glance has: static dlbridge::Glance plain(const "
      "Object&, DLTensor&) and static dlbridge::Lease lease(const Object&, DLTensor&)");
}
template <typename Bridge>
constexpr void require_consumer() {
  static_assert(
      requires { typename Bridge::Object; },
      "a bridge names the type of its library's tensors: using Object = ...;");
  static_assert(
      requires(const Source& source) {
        { Bridge::capabilities(source) } -> std::convertible_to<const Capabilities&>;
      },
      "a bridge to convert to has: static const dlbridge::Capabilities& capabilities(const "
      "dlbridge::Source&)");
  static_assert(
      requires(ManagedTensor tensor) {
        { Bridge::deliver(std::move(tensor)) } -> std::same_as<typename Bridge::Object>;
      },
      "a bridge to convert to has: static Object deliver(dlbridge::ManagedTensor)");
}

/// Where a copy is to be written, if not to memory of its own: to a tensor that is there, or to one
/// that `allocate` makes on the host when it is needed.
struct Room {
  const DLTensor* tensor = nullptr;
  Stream stream{};  // that its memory is used on, if it is a device's
  ManagedTensor (*allocate)(void* context, DType dtype,
                            std::span<const std::int64_t> shape) = nullptr;
  void* context = nullptr;

  [[nodiscard]] bool is_given() const noexcept { return tensor != nullptr || allocate != nullptr; }
};

/// A managed tensor, and the stream that its memory is ordered on where it is a device's.
struct Carried {
  ManagedTensor tensor;
  Stream stream;
};

/// Whether what a library made is what the plan says: private memory, on the host packed and
/// aligned as the target needs it.
[[nodiscard]] inline bool is_the_copy(const ManagedTensor& made, const Plan& plan) {
  const DLTensor& tensor = made.tensor();
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
  return !Device(tensor.device).host_accessible() ||
         (!made.readonly() && is_c_contiguous(tensor) &&
          address % static_cast<std::uintptr_t>(plan.alignment) == 0);
}

/// Whether what was taken is the copy already that the producer's leg is for.
[[nodiscard]] inline bool made_already(const Source& source, const Leg& leg) {
  return source.traits.is_copy && leg.does_only(Step::kRepack);
}

/// The legs of an accepted plan, one after the other, but for the consumer's: the one way from an
/// opened door to a managed tensor. With a `room` the copy is written there; the tensor is empty
/// where that was there already.
///
/// A Door has the object's `source`; acquire(), a view that keeps the memory; prepare(leg, after),
/// what its library makes, described in `after`; Copying(door, bytes, waits), a scope around
/// what reads memory: where others may have a lock meanwhile, it lets go of it; its kGiveBack, how
/// what was read is given back from a runtime's thread; and warn(warning), which may throw.
template <typename Door>
[[nodiscard]] Carried carry(Door& door, const Plan& plan, const Room& room = {}) {
  Source& source = door.source;
  const Device device(source.tensor.device);
  if (device.type != kDLCPU && device.host_accessible()) [[unlikely]] {
    const typename Door::Copying scope(door, 0, /*waits=*/true);
    wait_for_host_memory(source);
  }
  const std::size_t count = plan.leg_count;
  const std::size_t own = count - (count != 0 && plan.route[count - 1].who == Who::kConsumer);
  if (own == 0) [[likely]] {
    Carried view{door.acquire(), source.stream};
    carry_out_view(plan, view.tensor);
    return view;
  }
  Source prepared;  // what the library made, if the first leg is the producer's
  Carried carried;
  for (std::size_t i = 0; i < own; ++i) {
    Leg leg = plan.route[i];
    const bool last = i + 1 == own;
    if (leg.who == Who::kProducer) {
      if (made_already(source, leg)) {
        carried = {door.acquire(), source.stream};
        prepared.stream = source.stream;
      } else {
        carried = {door.prepare(leg, prepared), prepared.stream};
      }
      prepared.tensor = carried.tensor.tensor();  // the object that it was read from may be gone
      carried.tensor.mark_copied();
      if (!last) {
        continue;
      }
      if (!room.is_given() && is_the_copy(carried.tensor, plan)) {
        carried.tensor.reinterpret(plan.dtype);
        continue;
      }
      leg = {Who::kEngine, 0, plan.dtype, leg.to};  // made such a copy, or brought to its room
    }
    const Source& from = carried.tensor ? prepared : source;
    const bool from_device = !Device(from.tensor.device).host_accessible();
    const bool waits = !leg.to.host_accessible() || from_device;
    ManagedTensor read;
    if (from_device && !leg.to.host_accessible()) [[unlikely]] {  // the copy is only begun here
      const Stream on = room.tensor != nullptr ? room.stream : managed_stream(leg.to);
      read = until_done_on(carried.tensor ? std::move(carried.tensor) : door.acquire(), on,
                           Door::Copying::kGiveBack);
    }
    CastWarning warning = CastWarning::kNone;
    {
      const typename Door::Copying scope(door, plan.bytes_copied, waits);
      if (room.tensor != nullptr) {
        carry_out_into(leg, from, *room.tensor, room.stream, &warning);
        carried = {};
      } else if (room.allocate != nullptr) {
        const auto ndim = static_cast<std::size_t>(from.tensor.ndim);
        ManagedTensor made = room.allocate(room.context, leg.dtype, {from.tensor.shape, ndim});
        carry_out_into(leg, from, made.tensor(), {}, &warning);
        made.mark_copied();
        carried = {std::move(made), {}};
      } else {
        carried = {carry_out(leg, from, &warning, plan.alignment), managed_stream(leg.to)};
      }
    }
    if (warning != CastWarning::kNone) [[unlikely]] {
      door.warn(warning);
    }
    if (room.is_given()) {
      return carried;
    }
  }
  return carried;
}

/// Of a door without a lock: nothing to let go of.
struct NoScope {
  static constexpr RunElsewhere kGiveBack = run_elsewhere;

  template <typename Door>
  NoScope(const Door& /*door*/, std::int64_t /*bytes*/, bool /*waits*/) noexcept {}
};

/// Holds what a library made against the leg and what it was asked for: where it is, of which dtype
/// and shape, and that nothing is left to be done.
/// What says that autograd or its owner would mind a write says nothing of private memory.
void require_prepared(const Leg& leg, const Source& asked, Source& made);
/// Throws MalformedTensor for a description whose shape cannot be read, which plan() would do.
void require_dimensions(const Source& source);
/// What a bridge acquired, held against its own description, by which the plan was made, and with
/// the flags that follow from that. `is_private`: of what it made, which may be read-only or not.
[[nodiscard]] ManagedTensor as_described(ManagedTensor acquired, const Source& source,
                                         bool is_private = false);
[[noreturn]] void refuse_to_prepare(const Source& source);

/// An object whose door is open, for the bridges of C++.
template <Producer From>
struct Opened {
  using Copying = NoScope;

  explicit Opened(const typename From::Object& object_) : object(object_) {
    From::describe(object, source);
    source.traits.can_prepare = Preparer<From>;
    require_dimensions(source);
  }
  [[nodiscard]] ManagedTensor acquire() {
    return as_described(From::acquire(object, source), source);
  }
  [[nodiscard]] ManagedTensor prepare(const Leg& leg, Source& after) {
    if constexpr (Preparer<From>) {
      const typename From::Object prepared = From::prepare(object, leg);
      From::describe(prepared, after);
      require_prepared(leg, source, after);
      return as_described(From::acquire(prepared, after), after, true);
    } else {
      refuse_to_prepare(source);
    }
  }

  void warn(CastWarning met) const {
    if (warning != nullptr) {
      *warning = met;
    }
  }

  const typename From::Object& object;
  Source source;
  CastWarning* warning = nullptr;
};

/// Runs what carries legs for a target: where a cast does not fit, the advice is a type of its.
template <typename Action>
decltype(auto) carried_for(const Capabilities& target, Action&& action) {
  try {
    return action();
  } catch (const ValueOutOfRange& refused) {
    OutOfRange met = refused.met;
    met.dtypes = target.dtypes;
    throw ValueOutOfRange(std::move(met));
  }
}

/// Refuses a view whose address was corrected to one that the target cannot read.
void require_readable(const ManagedTensor& view, const Source& source, const Capabilities& target);

// By an accepted plan, and ordered on managed_stream().
template <typename Door>
[[nodiscard]] ManagedTensor carried_out(Door& door, const Plan& decided,
                                        const Capabilities& target) {
  Carried carried = carried_for(target, [&] { return carry(door, decided); });
  if (decided.view) {
    require_readable(carried.tensor, door.source, target);
  }
  const Device device = carried.tensor.device();
  if (!device.host_accessible()) [[unlikely]] {
    order_streams(device, carried.stream, managed_stream(device));
  }
  return std::move(carried.tensor);
}

// Through an opened door: decided, carried, and ordered.
template <Producer From>
[[nodiscard]] ManagedTensor brought_out(Opened<From>& door, const Capabilities& target,
                                        const Policy& policy, const Request& request) {
  const Plan decided = plan(door.source, target, policy, request);
  if (decided.is_refused()) {
    throw refusal(decided, door.source, target, policy, request);
  }
  door.warning = request.warning;
  return carried_out(door, decided, target);
}

// As to_managed(), whatever the object is like. Apart, so that the common case stays short.
template <Producer From>
[[nodiscard]] ManagedTensor to_managed_by_plan(const typename From::Object& object,
                                               const Capabilities& target, const Policy& policy,
                                               const Request& request) {
  Opened<From> door(object);
  return brought_out(door, target, policy, request);
}

// Of what passes as it is.
[[nodiscard]] constexpr std::uint64_t flags_of(Glance glance) {
  return glance == Glance::kInGraph ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
}

}  // namespace detail

/// The object as a managed tensor that `target` can take, under `policy`. Throws ConversionRefused
/// with nothing taken; on success the result keeps the memory valid by itself.
template <typename From>
[[nodiscard]] ManagedTensor to_managed(const typename From::Object& object,
                                       const Capabilities& target, const Policy& policy = {},
                                       const Request& request = {}) {
  detail::require_producer<From>();
  if constexpr (PlainProducer<From>) {
    DLTensor tensor;
    const Glance glance = From::plain(object, tensor);
    if (takes_as_it_is(glance, target, tensor, policy, request)) [[likely]] {
      const Lease held = From::lease(object, tensor);
      return ManagedTensor::own_trusted(tensor, detail::flags_of(glance), held);
    }
  }
  return detail::to_managed_by_plan<From>(object, target, policy, request);
}

/// What a managed tensor itself can carry: everything that DLPack can.
[[nodiscard]] const Capabilities& managed_tensor_capabilities() noexcept;

/// The bridge out of a managed tensor that is there already, of somebody else's making perhaps:
/// `convert<DLPack, Torch>(tensor, policy)`. A view is another owner of its memory.
struct DLPack {
  using Object = ManagedTensor;
  static constexpr Library kLibrary{.name = "DLPack", .object = "DLPack tensor"};

  static void describe(const ManagedTensor& tensor, Source& source) {
    dlbridge::describe(tensor, kLibrary, source);
  }
  static ManagedTensor acquire(const ManagedTensor& tensor, const Source& /*source*/) {
    return tensor.share();
  }
};

/// Takes `object` out of one library and into another, under `policy`.
/// Throws ConversionRefused; whatever the bridges throw comes through.
template <typename From, typename To>
[[nodiscard]] typename To::Object convert(const typename From::Object& object,
                                          const Policy& policy = {}, const Request& request = {}) {
  detail::require_producer<From>();
  detail::require_consumer<To>();
  detail::Opened<From> door(object);
  return To::deliver(detail::brought_out(door, To::capabilities(door.source), policy, request));
}

}  // namespace dlbridge
