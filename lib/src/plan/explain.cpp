#include <algorithm>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/plan.hpp"

namespace dlbridge {
namespace {

// How a condition reads: "cannot view a torch.Tensor {met} as NumPy ({why})".
struct Wording {
  Condition condition;
  std::string_view met;
  std::string_view why;
};

constexpr std::array kWordings = {
    Wording{Condition::kInGraph, "that requires grad",
            "requires_grad is set, and autograd would not see a write through the view"},
    Wording{Condition::kForwardDual, "that carries a forward-mode tangent",
            "the tangent would be lost"},
    Wording{Condition::kConjBit, "with the conjugate bit set",
            "its imaginary parts would change sign"},
    Wording{Condition::kNegBit, "with the negative bit set", "its values would change sign"},
    Wording{Condition::kZeroTensor, "that is a zero tensor", "its zeros are not in memory"},
    Wording{Condition::kSparse, "with a sparse layout",
            "its values do not lie where shape and strides would say"},
    Wording{Condition::kOpaqueLayout, "with the mkldnn layout",
            "only mkldnn knows where its values lie"},
    Wording{Condition::kQuantised, "that is quantised",
            "its integers mean nothing without their scale and zero point"},
    Wording{Condition::kNested, "that is nested", "its parts have shapes of their own"},
    Wording{Condition::kMeta, "on the meta device", "it has a shape but no values"},
    Wording{Condition::kFake, "that is a FakeTensor", "it has a shape but no values"},
    Wording{Condition::kFunctorch, "inside a function transform such as vmap or grad",
            "what it stands for exists only inside the transform"},
    Wording{Condition::kFunctionalised, "wrapped for functionalisation",
            "its values are in another tensor"},
    Wording{Condition::kWrapperSubclass, "of a wrapper subclass ({detail})",
            "its values are in other tensors"},
    Wording{Condition::kDispatchSubclass, "of a subclass with __torch_dispatch__ ({detail})",
            "its own rules for what its values are would be passed by"},
    Wording{Condition::kFreedStorage, "whose storage was freed or is smaller than its shape",
            "there is no memory to read"},
    Wording{Condition::kNullData, "whose data is NULL", "there is no memory to read"},
    Wording{Condition::kMasked, "with a mask", "the mask would be lost"},
    Wording{Condition::kSwappedBytes, "in the other byte order",
            "DLPack carries the machine's own byte order only"},
    Wording{Condition::kFractionalStrides, "with strides that are no multiple of the item size",
            "DLPack counts strides in elements"},
    Wording{Condition::kReadOnly, "that nobody may write to",
            "{target} does not know read-only memory"},
    Wording{Condition::kInexpressibleDType, "of dtype {detail}", "DLPack has no such type"},
    Wording{Condition::kPaddedSubByte, "of dtype {detail}",
            "its elements are padded to whole bytes, and would arrive as other numbers"},
    Wording{Condition::kCopiesOut, "", "its library hands out a copy, not its own memory"},
    Wording{Condition::kPaddedElements, "of dtype {dtype} that is padded to whole bytes",
            "its elements would be read as packed ones"},
    Wording{Condition::kTooManyDimensions, "of {ndim} dimensions",
            "{target} takes at most {max_ndim}"},
    Wording{Condition::kTooFewDimensions, "of {ndim} dimensions",
            "{target} takes at least {min_ndim}"},
    Wording{Condition::kOverlap, "whose elements share memory",
            "one write would change several of them"},
    Wording{Condition::kNegativeStrides, "with negative strides", "{target} takes none"},
    Wording{Condition::kNotCompact, "that is not C-contiguous", "{target} takes no other layout"},
    Wording{Condition::kMisaligned, "at an address that is no multiple of {alignment} bytes",
            "{target} needs that alignment"},
    Wording{Condition::kMissingDType, "of dtype {dtype}", "{target} has no such type"},
    Wording{Condition::kOtherDevice, "on {device}", "the target is on {to_device}"},
    Wording{Condition::kNoWayToDevice, "on {device}", "{unreachable}"},
    Wording{Condition::kCastAsked, "of dtype {dtype}",
            "a cast to {to_dtype} was asked for, and a cast is a copy"},
    Wording{Condition::kNoCast, "of dtype {dtype}",
            "there is no cast to the dtype {to_dtype} that was asked for"},
    Wording{Condition::kCopiesIn, "", "{target} makes a copy of whatever it is given"},
    Wording{Condition::kCopyAsked, "", "a copy was asked for"},
};

constexpr bool every_condition_has_its_wording() {
  for (std::size_t i = 0; i < kWordings.size(); ++i) {
    if (kWordings[i].condition != static_cast<Condition>(i)) {
      return false;
    }
  }
  return kWordings.size() == static_cast<std::size_t>(kConditionCount);
}
static_assert(every_condition_has_its_wording());

// The 32-bit sibling of a 64-bit type: what a library without the one may have.
std::optional<DType> narrower(DType dtype) {
  const int half = dtype.bits / 2;
  const bool wide = dtype.lanes == 1 && (dtype.is(kDLComplex) ? half == 64 : half == 32);
  return wide ? std::optional<DType>({dtype.code, half}) : std::nullopt;
}

class Writer {
 public:
  Writer(const Plan& plan, const Source& source, const Capabilities& target, const Policy& policy,
         const Request& request)
      : plan_(plan), source_(source), target_(target), policy_(policy), request_(request) {}

  Explanation write() const {
    Explanation text;
    for (std::size_t i = 0; i < kStepNames.size(); ++i) {
      if (plan_.has(static_cast<Step>(i))) {
        text.steps.emplace_back(kStepNames[i]);
      }
    }
    const Conditions named = plan_.is_refused() ? plan_.refused : plan_.reasons;
    named.for_each([&](Condition condition) { text.reasons.push_back(reason(condition)); });
    if (plan_.is_refused()) {
      text.fix = fix();
      text.message = message(text.fix);
    } else {
      text.way = way();
    }
    return text;
  }

 private:
  std::string filled(std::string_view pattern) const {
    std::string text(pattern);
    const auto put = [&text](std::string_view name, const std::string& value) {
      if (const auto at = text.find(name); at != std::string::npos) {
        text.replace(at, name.size(), value);
      }
    };
    const bool moves = plan_.device != Device(source_.tensor.device);
    put("{unreachable}", moves ? "nothing here can bring it to " + to_string(plan_.device) + tried()
                               : std::string("{target} cannot use that memory"));
    put("{target}", std::string(target_.name));
    put("{detail}", source_.detail);
    put("{ndim}", std::to_string(source_.tensor.ndim));
    put("{min_ndim}", std::to_string(target_.min_dimensions));
    put("{max_ndim}", std::to_string(target_.max_dimensions));
    put("{alignment}", std::to_string(target_.alignment));
    put("{dtype}", to_string(DType(source_.tensor.dtype)));
    put("{to_dtype}", to_string(request_.dtype.value_or(plan_.dtype)));
    put("{device}", to_string(Device(source_.tensor.device)));
    put("{to_device}", to_string(plan_.device));
    return text;
  }

  // What a move would have needed and did not find.
  std::string tried() const {
    const Device here(source_.tensor.device);
    const bool to_host = plan_.device.type == kDLCPU;
    const std::int32_t type = to_host ? here.type : plan_.device.type;
    const std::string place = to_string(Device(type, 0));
    const std::string kind = place.substr(0, place.find(':'));
    if (!target_.devices.contains(plan_.device.type)) {
      return ": " + std::string(target_.name) + " has no " + kind + " device here" + absence(type);
    }
    if (plan_.carrier != Carrier::kNobody || !(to_host || here.host_accessible())) {
      return {};
    }
    return ": there is no runtime for " + kind + " devices" + absence(type) + ", and " +
           (to_host ? "its library does not copy to the host when asked"
                    : std::string(target_.name) + " moves nothing there");
  }

  static std::string absence(std::int32_t type) {
    const std::string_view reason = runtime_absence(type);
    return reason.empty() ? std::string() : " (" + std::string(reason) + ")";
  }

  // The rung of the ladder to the memory, where it is not plain host memory.
  std::string way() const {
    const Device here(source_.tensor.device);
    switch (plan_.carrier) {
      case Carrier::kRuntime: {
        const DeviceRuntime* runtime =
            device_runtime(here.host_accessible() ? plan_.device.type : here.type);
        return "dlbridge copies it" +
               (runtime == nullptr ? std::string() : " by " + std::string(runtime->name()));
      }
      case Carrier::kProducer:
        return "its own library is asked to copy it to " + to_string(plan_.device);
      case Carrier::kConsumer:
        return std::string(target_.name) + " copies it to " + to_string(plan_.device);
      case Carrier::kNobody:
        break;
    }
    const bool on_host_for_device = here.host_accessible() && here.type != kDLCPU;
    return on_host_for_device && target_.wants_host
               ? "it is read where it lies, after a wait for the device's work on it"
               : std::string();
  }

  std::string reason(Condition condition) const {
    const auto& wording = kWordings[static_cast<std::size_t>(condition)];
    if (wording.met.empty()) {
      return filled(wording.why);
    }
    return "a " + std::string(source_.traits.library->object) + " " + filled(wording.met) + ": " +
           filled(wording.why);
  }

  std::string message(const std::string& fix) const {
    std::string met;
    std::string why;
    plan_.refused.for_each([&](Condition condition) {
      const auto& wording = kWordings[static_cast<std::size_t>(condition)];
      if (!wording.met.empty()) {
        met += (met.empty() ? " " : " and ") + filled(wording.met);
      }
      why += (why.empty() ? "" : "; ") + filled(wording.why);
    });
    const bool copying = policy_.copy() == CopyRule::kAlways;
    std::string text = copying ? "cannot convert a " : "cannot view a ";
    text += std::string(source_.traits.library->object) + met + " as " + std::string(target_.name) +
            " (" + why + ")";
    if (!fix.empty()) {
      text += "; use " + fix;
    }
    return text;
  }

  // What would happen under another policy, with the caller's own words for it.
  struct Way {
    Policy policy;
    std::string_view words;
  };

  std::string fix() const {
    std::string text;
    const Policy host = Policy::host();
    const Policy dense = host.with(Field::kLayout, Ruling::kDensify);
    if (const auto narrow = narrower(source_.tensor.dtype);
        narrow && plan_.refused.has(Condition::kMissingDType) && target_.dtypes.contains(*narrow)) {
      return "dtype=\"" + to_string(*narrow) + "\" to cast";
    }
    const std::string_view legacy = "max_version=(1, 3), or policy=\"snapshot\"";
    const Way ways[] = {
        {policy_.with_copy(CopyRule::kWhenNeeded), ""},
        {host, "policy=\"host\""},
        {dense, "policy=dlbridge.host.replace(layout=\"densify\")"},
        {host.with(Field::kDType, Ruling::kUpcast),
         "policy=dlbridge.host.replace(dtype=\"upcast\")"},
        {host.with(Field::kDType, Ruling::kBits), "policy=dlbridge.host.replace(dtype=\"bits\")"},
        {Policy::snapshot(), target_.readonly == ReadOnlySupport::kNever ? legacy : ""},
    };
    for (const auto& way : ways) {
      // The first way leaves the policy alone, so it is one only where an argument forbade copying.
      const bool by_argument = &way == &ways[0];
      if (!by_argument && way.words.empty()) {
        continue;
      }
      if (by_argument && !(request_.copy_was_argument && policy_.copy() == CopyRule::kNever)) {
        continue;
      }
      const Plan other = plan(source_, target_, way.policy, request_);
      if (other.is_refused()) {
        continue;
      }
      if (by_argument) {
        text = "the call without copy=False to copy";
      } else {
        text = std::string(way.words);
        text += other.view ? (other.writable ? "" : " for a read-only view") : " to copy";
      }
      break;
    }
    if (plan_.refused.has(Condition::kMissingDType) && !target_.extension_hint.empty()) {
      text += (text.empty() ? "" : ", or ") + std::string(target_.extension_hint);
    }
    const std::string call = library_call();
    if (!call.empty()) {
      text += (text.empty() ? "" : ", or ") + call;
    }
    return text;
  }

  // The library's own calls, if it has one for every condition that refuses.
  std::string library_call() const {
    std::string calls;
    bool complete = true;
    plan_.refused.for_each([&](Condition condition) {
      const std::string call = call_for(condition);
      complete = complete && !call.empty();
      if (calls.find(call) == std::string::npos) {
        calls += (calls.empty() ? "" : " and ") + call;
      }
    });
    return complete ? calls : std::string();
  }

  std::string call_for(Condition condition) const {
    // Memory of the host needs no call that would bring it there.
    if (condition == Condition::kNoWayToDevice && Device(source_.tensor.device).host_accessible()) {
      return {};
    }
    for (const auto& fix : source_.traits.library->fixes) {
      if (fix.condition == condition && !fix.call.empty()) {
        return std::string(fix.call);
      }
    }
    return condition == Condition::kInexpressibleDType || condition == Condition::kPaddedSubByte ||
                   condition == Condition::kWrapperSubclass
               ? source_.fix
               : std::string();
  }

  const Plan& plan_;
  const Source& source_;
  const Capabilities& target_;
  const Policy& policy_;
  const Request& request_;
};

}  // namespace

Explanation explain(const Plan& plan, const Source& source, const Capabilities& target,
                    const Policy& policy, const Request& request) {
  return Writer(plan, source, target, policy, request).write();
}

ConversionRefused refusal(const Plan& plan, const Source& source, const Capabilities& target,
                          const Policy& policy, const Request& request) {
  Explanation text = explain(plan, source, target, policy, request);
  return ConversionRefused(text.message, std::move(text.reasons), std::move(text.fix));
}

}  // namespace dlbridge
