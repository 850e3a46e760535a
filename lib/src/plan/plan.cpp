#include "dlbridge/plan.hpp"

#include "dlbridge/copy.hpp"
#include "plan/itself.hpp"
#include "plan/near_types.hpp"
#include "plan/route.hpp"
#include "tensor/layout.hpp"

namespace dlbridge {
namespace {

constexpr Conditions kNeverCross =
    kWithoutStorage | detail::kBesideValues |
    Conditions{Condition::kQuantised,          Condition::kNested,
               Condition::kDispatchSubclass,   Condition::kNulls,
               Condition::kInexpressibleDType, Condition::kMixedTypes,
               Condition::kPaddedSubByte};

// The decision, made condition by condition. Refusals are kept, so that a caller learns all of them
// at once.
class Planner {
 public:
  Planner(const Source& source, const Capabilities& target, const Policy& policy,
          const Request& request, DeviceSet runtimes)
      : source_(source), target_(target), policy_(policy), request_(request), runtimes_(runtimes) {
    plan_.dtype = source.tensor.dtype;
    plan_.device = source.tensor.device;
  }

  Plan run() {
    const Conditions said = source_.traits.conditions;
    said.for_each([this](Condition condition) { rule(condition); });
    if (!said.meets(kNeverCross)) {
      observe_dtype();
      observe_device();
      observe_layout(said);
    } else if (said.meets(detail::kNoTensor)) {
      return detail::refused_alone(source_);
    } else if (request_.asks_for_cast(plan_.dtype)) {
      observe_cast(*request_.dtype);  // so that one fix helps with all of it
    }
    if (target_.copies && !copies_) {
      need_copy(Condition::kCopiesIn, Step::kRepack);
      of_consumer_ |= detail::bits_of({Step::kRepack});
    }
    if (policy_.copy() == CopyRule::kAlways && !copies_) {
      need_copy(Condition::kCopyAsked, Step::kRepack);
    }
    settle_mutable(said.has(Condition::kReadOnly));
    settle_read_only(said.has(Condition::kReadOnly));
    settle_writable();
    if (said.has(Condition::kPaddedElements) && (copies_ || !target_.carries_padding)) {
      refuse(Condition::kPaddedElements);
    }
    if (copies_ && !plan_.is_refused()) {
      finish_copy();
    }
    if (plan_.is_refused()) {
      plan_.steps = 0;
      plan_.noted = {};
      plan_.leg_count = 0;
      plan_.bytes_copied = 0;
      plan_.view = false;
      plan_.writable = false;
    }
    plan_.writable = plan_.writable && target_.gives_writable;
    return plan_;
  }

 private:
  void refuse(Condition condition) {
    plan_.reasons.add(condition);
    plan_.refused.add(condition);
  }

  void take(Condition condition, Step step) {
    plan_.reasons.add(condition);
    plan_.add(step);
  }

  void need_copy(Condition condition, Step step) {
    const bool by_library = step == Step::kDensify || step == Step::kGather;
    if (policy_.copy() == CopyRule::kNever || (by_library && !source_.traits.can_prepare)) {
      refuse(condition);
      return;
    }
    take(condition, step);
    copies_ = true;
  }

  // A row of the policy table whose only choice is to copy or to refuse.
  void copy_unless_refused(Field field, Condition condition, Step step) {
    if (policy_[field] == Ruling::kRefuse) {
      refuse(condition);
    } else {
      need_copy(condition, step);
    }
  }

  void rule(Condition condition) {
    switch (condition) {
      case Condition::kInGraph:
      case Condition::kForwardDual:
        if (policy_[Field::kGrad] == Ruling::kRefuse) {
          refuse(condition);
        } else {
          take(condition, Step::kDetach);
          detached_ = condition;
          read_only_ = read_only_ || policy_[Field::kGrad] == Ruling::kDetach;
        }
        break;
      case Condition::kConjBit:
        copy_unless_refused(Field::kBits, condition, Step::kResolveConj);
        break;
      case Condition::kNegBit:
        copy_unless_refused(Field::kBits, condition, Step::kResolveNeg);
        break;
      case Condition::kZeroTensor:
        copy_unless_refused(Field::kBits, condition, Step::kMaterialise);
        break;
      case Condition::kSparse:
      case Condition::kOpaqueLayout:
        copy_unless_refused(Field::kLayout, condition, Step::kDensify);
        break;
      case Condition::kScattered:
      case Condition::kLazy:
        need_copy(condition, Step::kGather);
        break;
      case Condition::kSwappedBytes:
        need_copy(condition, Step::kSwapBytes);
        break;
      case Condition::kFractionalStrides:
      case Condition::kCopiesOut:
      case Condition::kNotShared:
        need_copy(condition, Step::kRepack);
        break;
      case Condition::kPaddedElements:
        break;  // settled when it is known whether they are copied
      case Condition::kTraced:
        plan_.reasons.add(condition);  // its library says so, and lets it go
        break;
      case Condition::kReadOnly:
        break;  // settled last: what matters is whether a view is left
      default:
        refuse(condition);
    }
  }

  void observe_cast(DType wanted) {
    const DType dtype = source_.tensor.dtype;
    const bool taken = target_.dtypes.contains(wanted) || target_.extension_dtypes.contains(wanted);
    // What has no type yet gets one by the fix.
    if (!taken || (dtype.bits != 0 && !can_cast(dtype, wanted))) {
      refuse(taken ? Condition::kNoCast : Condition::kMissingAskedDType);
      return;
    }
    plan_.dtype = wanted;
    need_copy(Condition::kCastAsked, Step::kCast);
  }

  void observe_dtype() {
    const DType dtype = source_.tensor.dtype;
    if (request_.asks_for_cast(dtype)) {
      observe_cast(*request_.dtype);
      return;
    }
    if (target_.dtypes.contains(dtype)) {
      return;
    }
    // An argument stands over its field: whoever asks for this very type gets no other.
    const Ruling ruling = request_.dtype ? Ruling::kMlDTypes : policy_[Field::kDType];
    if (ruling == Ruling::kMlDTypes && target_.extension_dtypes.contains(dtype)) {
      return;
    }
    if (ruling == Ruling::kUpcast) {
      // Of vectors there is no cast, nor of a bfloat that is not of 16 bits.
      const auto wide = detail::widened(dtype);
      if (wide && can_cast(dtype, *wide) && target_.dtypes.contains(*wide)) {
        plan_.dtype = *wide;
        need_copy(Condition::kMissingDType, Step::kCast);
        return;
      }
    }
    if (ruling == Ruling::kBits) {
      if (const auto integer = detail::same_width_integer(dtype);
          integer && target_.dtypes.contains(*integer)) {
        plan_.dtype = *integer;
        plan_.reasons.add(Condition::kMissingDType);
        return;
      }
    }
    refuse(Condition::kMissingDType);
  }

  void observe_device() {
    const Device here(source_.tensor.device);
    Device there = here;
    if (request_.device) {
      there = *request_.device;
    } else if (target_.wants_host && !here.host_accessible()) {
      there = Device{};
    } else if (target_.own_device != 0 && here.host_accessible()) {
      there = Device(target_.own_device, 0);
    }
    // Host memory that a device may also read is host memory to whoever asks for the host.
    if (there == here || (there.type == kDLCPU && here.host_accessible())) {
      if (!target_.devices.contains(here.type)) {
        refuse(Condition::kNoWayToDevice);
      }
      return;
    }
    plan_.device = there;
    mover_ = detail::mover(source_, target_, runtimes_, there);
    if (!target_.devices.contains(there.type) || !mover_) {
      refuse(Condition::kNoWayToDevice);
      return;
    }
    const Step step = there.type == kDLCPU ? Step::kCopyToHost : Step::kCopyToDevice;
    if (mover_ == Who::kConsumer) {
      of_consumer_ |= detail::bits_of({step});
    }
    copy_unless_refused(Field::kDevice, Condition::kOtherDevice, step);
  }

  void observe_layout(Conditions said) {
    const DLTensor& tensor = source_.tensor;
    if (tensor.ndim > target_.max_dimensions) {
      refuse(Condition::kTooManyDimensions);
      return;
    }
    if (tensor.ndim < target_.min_dimensions) {
      refuse(Condition::kTooFewDimensions);
      return;
    }
    if (said.meets(kWithoutStrides)) {
      return;
    }
    if (tensor.data == nullptr && element_count(tensor) != 0) {
      refuse(Condition::kNullData);  // whatever its bridge says of it
      return;
    }
    if (said.has(Condition::kFractionalStrides)) {
      return;
    }
    if (!is_aligned(tensor, target_) && element_count(tensor) != 0) {
      need_copy(Condition::kMisaligned, Step::kRepack);
    }
    if (is_c_contiguous(tensor)) {
      return;
    }
    if (request_.c_order) {
      need_copy(Condition::kOrderAsked, Step::kRepack);
    }
    if (target_.strides == StrideSupport::kCompact) {
      need_copy(Condition::kNotCompact, Step::kRepack);
    } else if (target_.strides == StrideSupport::kNonNegative &&
               detail::has_negative_stride(tensor)) {
      need_copy(Condition::kNegativeStrides, Step::kRepack);
    }
    observe_overlap(said.has(Condition::kReadOnly));
  }

  void observe_overlap(bool already_read_only) {
    const Ruling ruling = policy_[Field::kOverlap];
    if (ruling == Ruling::kReadOnlyView && (already_read_only || target_.guards_overlap)) {
      return;
    }
    if (!overlaps_itself(source_.tensor)) {
      return;
    }
    if (ruling == Ruling::kRefuse) {
      refuse(Condition::kOverlap);
    } else if (ruling == Ruling::kCopy) {
      need_copy(Condition::kOverlap, Step::kRepack);
    } else {
      overlaps_ = true;  // a reason only if a view is left
      read_only_ = true;
    }
  }

  void settle_mutable(bool source_is_read_only) {
    const Ruling ruling = policy_[Field::kMutable];
    if (!target_.takes_as_constant || source_is_read_only) {
      return;
    }
    if (ruling == Ruling::kRefuse) {
      refuse(Condition::kMutable);
    } else if (!copies_ && ruling == Ruling::kCopy) {
      need_copy(Condition::kMutable, Step::kRepack);
    } else {
      plan_.noted.add(Condition::kMutable);
    }
  }

  void settle_read_only(bool source_is) {
    const bool unaware = target_.readonly != ReadOnlySupport::kHonours;
    // A field that refuses does so also where a copy would be made for another reason.
    if (source_is && unaware && policy_[Field::kReadOnly] == Ruling::kRefuse) {
      refuse(Condition::kReadOnly);
      return;
    }
    if (copies_ || !(source_is || read_only_)) {
      return;
    }
    plan_.reasons.add_if(overlaps_, Condition::kOverlap);
    if (!unaware) {
      plan_.writable = false;
      if (!source_is) {
        plan_.add(Step::kMarkReadOnly);
      }
      return;
    }
    // What made it read-only is what the caller should hear of.
    const Condition cause = source_is   ? Condition::kReadOnly
                            : overlaps_ ? Condition::kOverlap
                                        : detached_;
    const Ruling ruling = policy_[Field::kReadOnly];
    if (target_.readonly == ReadOnlySupport::kNever || ruling == Ruling::kRefuse) {
      refuse(cause);
    } else if (ruling == Ruling::kCopy && source_.traits.has_shared_pages) {
      take(cause, Step::kCopyOnWrite);  // of memory that nothing here can write to
    } else if (ruling == Ruling::kCopy) {
      need_copy(cause, Step::kRepack);
    } else {
      plan_.reasons.add(cause);  // an alias, at the caller's own risk
      alias_ = true;
    }
  }

  // What is asked for is memory that may be written to, so an alias of other memory is not enough.
  void settle_writable() {
    if (!request_.writable) {
      return;
    }
    if (!target_.gives_writable) {
      refuse(Condition::kNothingToWrite);
      return;
    }
    const DLTensor& tensor = source_.tensor;
    if (!copies_ &&
        (!plan_.writable || alias_ || (!is_c_contiguous(tensor) && overlaps_itself(tensor)))) {
      need_copy(Condition::kWritableAsked, Step::kRepack);
      plan_.writable = true;
      plan_.steps &=
          static_cast<std::uint16_t>(~detail::bits_of({Step::kMarkReadOnly, Step::kCopyOnWrite}));
    }
  }

  void finish_copy() {
    plan_.view = false;
    plan_.noted = {};
    // What does not fit is refused when the copy is allocated.
    plan_.bytes_copied = byte_count(source_.tensor, plan_.dtype);
    if (!detail::lay_legs(plan_, source_, target_, runtimes_, mover_, of_consumer_)) {
      refuse(Condition::kNoCopyThere);
    }
  }

  const Source& source_;
  const Capabilities& target_;
  const Policy& policy_;
  const Request& request_;
  const DeviceSet runtimes_;
  Plan plan_;
  std::optional<Who> mover_;       // who takes the memory to another device
  std::uint16_t of_consumer_ = 0;  // steps that the target's library does
  bool copies_ = false;
  bool read_only_ = false;
  bool overlaps_ = false;
  bool alias_ = false;
  Condition detached_ = Condition::kInGraph;
};

}  // namespace

Plan detail::plan_by_conditions(const Source& source, const Capabilities& target,
                                const Policy& policy, const Request& request, DeviceSet runtimes) {
  if (detail::stays_beside_numbers(source, policy, request)) {
    Plan plan = detail::as_it_is(source, target, true);
    plan.reasons.add(Condition::kInexpressibleDType);
    return plan;
  }
  return detail::its_library_copies(source, request)
             ? detail::own_copy(source, target, policy, request)
             : Planner(source, target, policy, request, runtimes).run();
}

Plan plan(const Source& source, const Capabilities& target, const Policy& policy,
          const Request& request, DeviceSet runtimes) {
  const bool is_there = !request.device || *request.device == Device(source.tensor.device);
  const bool itself = detail::stays_itself(source, policy, request);
  if (itself || (source.traits.conditions.empty() && !request.dtype && is_there &&
                 detail::takes_where_it_is(target, source.tensor, policy) &&
                 is_c_contiguous(source.tensor))) {
    return detail::as_it_is(source, target, itself);
  }
  return detail::plan_by_conditions(source, target, policy, request, runtimes);
}

}  // namespace dlbridge
