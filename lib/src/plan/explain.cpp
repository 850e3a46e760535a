#include <algorithm>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/plan.hpp"
#include "plan/fix.hpp"
#include "plan/route.hpp"

namespace dlbridge {
namespace {

struct Writer {
  const Plan& plan;
  const Source& source;
  const Capabilities& target;
  const Policy& policy;
  const Request& request;
  const Dialect dialect;

  Explanation write() const {
    Explanation text;
    for (std::size_t i = 0; i < kStepNames.size(); ++i) {
      if (plan.has(static_cast<Step>(i))) {
        text.steps.emplace_back(kStepNames[i]);
      }
    }
    const Conditions named = plan.is_refused() ? plan.refused : plan.reasons;
    named.for_each([&](Condition condition) { text.reasons.push_back(reason(condition)); });
    if (plan.is_refused()) {
      text.fix = detail::fix(plan, source, target, policy, request, dialect);
      text.message = message(text.fix);
    } else {
      text.notes = way();
      plan.noted.for_each(
          [&](Condition condition) { text.notes.push_back(filled(row_of(condition).why)); });
    }
    return text;
  }

  std::string filled(std::string_view pattern) const {
    std::string text(pattern);
    const auto put = [&text](std::string_view name, std::string_view value) {
      detail::put(text, name, value);
    };
    const bool moves = plan.device != Device(source.tensor.device);
    put("{unreachable}", moves ? "nothing here can bring it to " + to_string(plan.device) + tried()
                               : std::string("{target} cannot use that memory"));
    put("{no_runtime}", no_runtime(Device(source.tensor.device).type));
    put("{target}", target.name);
    const std::string_view detail = source.detail;
    put("{detail}", detail.empty() ? "unknown" : detail);
    put("{ndim}", std::to_string(source.tensor.ndim));
    put("{min_ndim}", std::to_string(target.min_dimensions));
    put("{max_ndim}", std::to_string(target.max_dimensions));
    put("{alignment}", std::to_string(needed_alignment(target, source.tensor.dtype)));
    put("{dtype}", to_string(DType(source.tensor.dtype)));
    put("{to_dtype}", to_string(request.dtype.value_or(plan.dtype)));
    put("{device}", to_string(Device(source.tensor.device)));
    put("{to_device}", to_string(plan.device));
    return text;
  }

  // Of what has no type of DLPack's nothing is said of its type.
  std::string filled_met(const ConditionRow& wording) const {
    const bool unknown = source.tensor.dtype.bits == 0;
    return unknown && wording.met == "of dtype {dtype}" ? std::string() : filled(wording.met);
  }

  // What a move would have needed and did not find.
  std::string tried() const {
    const Device here(source.tensor.device);
    const bool to_host = plan.device.type == kDLCPU;
    const std::int32_t type = to_host ? here.type : plan.device.type;
    if (!target.devices.contains(plan.device.type)) {
      return ": " + std::string(target.name) + " has no " + device_type_name(type) +
             " device here" + absence(type);
    }
    if (detail::mover(source, target, {}, plan.device) || !(to_host || here.host_accessible())) {
      return {};
    }
    return ": " + no_runtime(type) + ", and " +
           (to_host ? "its library does not copy to the host when asked"
                    : std::string(target.name) + " moves nothing there");
  }

  static std::string no_runtime(std::int32_t type) {
    return "there is no runtime for " + device_type_name(type) + " devices" + absence(type);
  }

  static std::string absence(std::int32_t type) {
    const std::string_view reason = runtime_absence(type);
    return reason.empty() ? std::string() : " (" + std::string(reason) + ")";
  }

  // The legs that others carry, and the wait for memory that the host reads where a device works.
  std::vector<std::string> way() const {
    const Device here(source.tensor.device);
    std::vector<std::string> told;
    for (const Leg& leg : plan.legs()) {
      if (std::string text = carried(leg, here); !text.empty()) {
        told.push_back(std::move(text));
      }
    }
    const bool on_host_for_device = here.host_accessible() && here.type != kDLCPU;
    if (told.empty() && on_host_for_device && target.wants_host) {
      told.emplace_back("it is read where it lies, after a wait for the device's work on it");
    }
    return told;
  }

  std::string carried(const Leg& leg, Device here) const {
    switch (leg.who) {
      case Who::kRuntime: {
        if (!leg.has(Step::kCopyToHost) && !leg.has(Step::kCopyToDevice)) {
          return {};
        }
        const DeviceRuntime* runtime =
            device_runtime(here.host_accessible() ? leg.to.type : here.type);
        return "dlbridge copies it" +
               (runtime == nullptr ? std::string() : " by " + std::string(runtime->name()));
      }
      case Who::kProducer:
        return leg.has(Step::kCopyToHost)
                   ? "its own library is asked to copy it to " + to_string(leg.to)
               : leg.has(Step::kDensify) || leg.has(Step::kGather) || source.traits.is_copy
                   ? std::string()
                   : "its own library is asked to copy it where it is";
      case Who::kConsumer:
        return leg.has(Step::kCopyToDevice)
                   ? std::string(target.name) + " copies it to " + to_string(leg.to)
                   : std::string();
      case Who::kEngine:
        break;
    }
    return {};
  }

  std::string reason(Condition condition) const {
    const ConditionRow& wording = row_of(condition);
    const std::string met = filled_met(wording);
    if (met.empty()) {
      return filled(wording.why);
    }
    return "a " + std::string(source.traits.words().object) + " " + met + ": " +
           filled(wording.why);
  }

  std::string message(const std::string& fix) const {
    std::string met;
    std::string why;
    plan.refused.for_each([&](Condition condition) {
      const ConditionRow& wording = row_of(condition);
      if (const std::string of_it = filled_met(wording); !of_it.empty()) {
        met += (met.empty() ? " " : " and ") + of_it;
      }
      why += (why.empty() ? "" : "; ") + filled(wording.why);
    });
    const bool copying = policy.copy() == CopyRule::kAlways;
    std::string text = copying ? "cannot convert a " : "cannot view a ";
    text += std::string(source.traits.words().object) + met + " as " + std::string(target.name) +
            " (" + why + ")";
    if (!fix.empty()) {
      text += "; use " + fix;
    }
    return text;
  }
};

}  // namespace

Explanation explain(const Plan& plan, const Source& source, const Capabilities& target,
                    const Policy& policy, const Request& request, Dialect dialect) {
  return Writer{plan, source, target, policy, request, dialect}.write();
}

ConversionRefused refusal(const Plan& plan, const Source& source, const Capabilities& target,
                          const Policy& policy, const Request& request, Dialect dialect) {
  Explanation text = explain(plan, source, target, policy, request, dialect);
  return ConversionRefused(text.message, std::move(text.reasons), std::move(text.fix));
}

}  // namespace dlbridge
