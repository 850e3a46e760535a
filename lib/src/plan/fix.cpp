#include "plan/fix.hpp"

#include <cctype>
#include <optional>
#include <vector>

#include "plan/near_types.hpp"

namespace dlbridge::detail {
namespace {

// The advice of a language: what its caller would write. {dtype} is filled in.
struct Advice {
  std::string_view cast;
  std::string_view host;
  std::string_view densify;
  std::string_view upcast;
  std::string_view bits;
  std::string_view snapshot;
  std::string_view versioned;  // where a legacy capsule was asked for
  std::string_view may_copy;   // where the call's own argument forbids it
  std::string_view and_may_copy;
};
constexpr Advice kPython{
    .cast = "dtype=\"{dtype}\"",
    .host = "policy=\"host\"",
    .densify = "policy=dlbridge.host.replace(layout=\"densify\")",
    .upcast = "policy=dlbridge.host.replace(dtype=\"upcast\")",
    .bits = "policy=dlbridge.host.replace(dtype=\"bits\")",
    .snapshot = "policy=\"snapshot\"",
    .versioned = "max_version=(1, 3), or ",
    .may_copy = "the call without copy=False to copy",
    .and_may_copy = " and the call without copy=False",
};
constexpr Advice kCpp{
    .cast = "Request{.dtype = dtype_named(\"{dtype}\")}",
    .host = "Policy::host()",
    .densify = "Policy::host().with(Field::kLayout, Ruling::kDensify)",
    .upcast = "Policy::host().with(Field::kDType, Ruling::kUpcast)",
    .bits = "Policy::host().with(Field::kDType, Ruling::kBits)",
    .snapshot = "Policy::snapshot()",
    .versioned = "a versioned capsule, or ",
    .may_copy = "the call without CopyRule::kNever to copy",
    .and_may_copy = " and the call without CopyRule::kNever",
};

constexpr Advice kC{
    .cast = "dlbridge_request{.dtype = \"{dtype}\"}",
    .host = "dlbridge_policy{.preset = \"host\"}",
    .densify = "dlbridge_policy{.layout = \"densify\"}",
    .upcast = "dlbridge_policy{.dtype = \"upcast\"}",
    .bits = "dlbridge_policy{.dtype = \"bits\"}",
    .snapshot = "dlbridge_policy{.preset = \"snapshot\"}",
    .versioned = "a DLManagedTensorVersioned, or ",
    .may_copy = "the call without .copy = \"never\" to copy",
    .and_may_copy = " and the call without .copy = \"never\"",
};

constexpr Advice kPythonArgument{
    .cast = "dlbridge.to(x, \"numpy\", dtype=\"{dtype}\")",
    .host = "a block of dlbridge.policy(\"host\")",
    .densify = "a block of dlbridge.policy(dlbridge.host.replace(layout=\"densify\"))",
    .upcast = "a block of dlbridge.policy(dlbridge.host.replace(dtype=\"upcast\"))",
    .bits = "a block of dlbridge.policy(dlbridge.host.replace(dtype=\"bits\"))",
    .snapshot = "a block of dlbridge.policy(\"snapshot\")",
    .versioned = "a versioned capsule, or ",
    .may_copy =
        "dlbridge.from_dlpack(x, device=\"{to_device}\", copy=True) and keep it: that copy is "
        "then written to",
    .and_may_copy = "",
};

const Advice& advice_of(Dialect dialect) {
  switch (dialect) {
    case Dialect::kPython:
      return kPython;
    case Dialect::kPythonArgument:
      return kPythonArgument;
    case Dialect::kC:
      return kC;
    case Dialect::kCpp:
      break;
  }
  return kCpp;
}

// The call with that in the place of every `x` that stands by itself.
std::string applied(std::string_view call, std::string_view to) {
  const auto is_part_of_a_name = [&](std::size_t i) {
    return i < call.size() && (std::isalnum(static_cast<unsigned char>(call[i])) != 0 ||
                               call[i] == '_' || call[i] == '"');
  };
  std::string text;
  for (std::size_t i = 0; i < call.size(); ++i) {
    const bool alone =
        call[i] == 'x' && !is_part_of_a_name(i + 1) && (i == 0 || !is_part_of_a_name(i - 1));
    text += alone ? to : call.substr(i, 1);
  }
  return text;
}

struct Adviser {
  const Conditions refused;
  const Device to;
  const Source& source;
  const Capabilities& target;
  const Policy& policy;
  const Request& request;
  const Advice& advice;

  [[nodiscard]] std::string write() const {
    std::string text = call_of_ours();
    const auto add = [&text](std::string_view other) {
      if (!other.empty()) {
        text += (text.empty() ? "" : ", or ") + std::string(other);
      }
    };
    add(refused.has(Condition::kMissingDType) ? target.extension_hint : "");
    add(call_of_the_library());
    return text;
  }

  // Another way to make the call, in its caller's words.
  struct Way {
    Policy policy;
    Request request;
    std::string words;
    std::string_view loses = "";
  };

  [[nodiscard]] std::vector<Way> ways() const {
    const Policy host = Policy::host();
    const Policy densify = host.with(Field::kLayout, Ruling::kDensify);
    std::vector<Way> all{{host, request, std::string(advice.host)}};
    const auto cast_to = [&](DType dtype, std::string_view loses) {
      Request asked = request;
      asked.dtype = dtype;
      std::string words(advice.cast);
      put(words, "{dtype}", to_string(dtype));
      all.push_back({policy, asked, words, loses});
      all.push_back({host, asked, std::string(advice.host) + ", " + words, loses});
      all.push_back({densify, asked, std::string(advice.densify) + ", " + words, loses});
    };
    const DType dtype(source.tensor.dtype);
    const bool missing = refused.has(Condition::kMissingDType) && !request.dtype;
    all.push_back({densify, request, std::string(advice.densify)});
    all.push_back({host.with(Field::kDType, Ruling::kUpcast), request, std::string(advice.upcast)});
    if (const auto wide = holder(); missing && wide) {
      cast_to(*wide, "");
    }
    if (const auto narrow = narrower(dtype); missing && narrow) {
      const bool integer = dtype.kind() == DType::Kind::kInteger;
      cast_to(*narrow, integer ? " where its values fit" : " (its values are rounded)");
    }
    all.push_back({host.with(Field::kDType, Ruling::kBits), request, std::string(advice.bits),
                   " (its bits as integers)"});
    if (target.readonly == ReadOnlySupport::kNever) {
      Capabilities versioned = target;
      versioned.readonly = ReadOnlySupport::kHonours;
      const bool enough = !plan(source, versioned, policy, request).is_refused();
      all.push_back({Policy::snapshot(), request,
                     std::string(enough ? advice.versioned : "").append(advice.snapshot)});
    }
    return all;
  }

  // What such a call would give, or nothing where it would be refused too.
  [[nodiscard]] std::optional<std::string_view> outcome(const Policy& by,
                                                        const Request& asked) const {
    const Plan other = plan(source, target, by, asked);
    if (other.is_refused()) {
      return std::nullopt;
    }
    if (other.itself) {
      return " for the object itself";
    }
    if (asked.dtype && !request.dtype) {
      return " to cast";
    }
    return other.view ? (other.writable ? "" : " for a read-only view") : " to copy";
  }

  [[nodiscard]] std::string call_of_ours() const {
    const bool forbids = request.copy_was_argument && policy.copy() == CopyRule::kNever;
    if (forbids && outcome(policy.with_copy(request.policy_copy), request)) {
      std::string words(advice.may_copy);
      put(words, "{to_device}", to_string(to));
      return words;
    }
    if (!request.takes_policy) {
      return {};
    }
    const std::vector<Way> all = ways();
    for (const bool loses : {false, true}) {  // those that keep the values come first
      std::string text = first_that_works(all, loses, false);
      if (text.empty() && forbids) {
        text = first_that_works(all, loses, true);
      }
      if (!text.empty()) {
        return text;
      }
    }
    return {};
  }

  // Of the ways that lose something, or of those that do not: in the call as it is, or without what
  // it says of copies, which stands over any policy.
  [[nodiscard]] std::string first_that_works(const std::vector<Way>& all, bool loses,
                                             bool without) const {
    for (const Way& way : all) {
      if (loses == way.loses.empty()) {
        continue;
      }
      const bool stands = request.copy_was_argument && !without;
      const Policy by = stands ? way.policy.with_copy(policy.copy()) : way.policy;
      if (const auto result = outcome(by, way.request)) {
        std::string text = way.words;
        text += without ? advice.and_may_copy : "";
        return text.append(*result).append(way.loses);
      }
    }
    return {};
  }

  // The first of the target's types that holds every value of the source's.
  [[nodiscard]] std::optional<DType> holder() const {
    for (const NamedDType& row : kNamedDTypes) {
      if (target.dtypes.contains(row.dtype) && holds(row.dtype, DType(source.tensor.dtype))) {
        return row.dtype;
      }
    }
    return std::nullopt;
  }

  // The library's own calls, one of the other's result, if it has one for every condition.
  [[nodiscard]] std::string call_of_the_library() const {
    std::string all;
    std::string losses;
    std::string seen;
    bool complete = true;
    const bool stays = stays_but_for_others();
    refused.for_each([&](Condition condition) {
      if (stays && condition == Condition::kInexpressibleDType) {
        return;
      }
      const std::string text = call_for(condition);
      const std::size_t end = text.find(" (");
      const std::string call = text.substr(0, end);
      complete = complete && !call.empty();
      if (call.empty() || seen.find(call + "\n") != std::string::npos) {
        return;
      }
      seen += call + "\n";
      if (end != std::string::npos) {
        losses += (losses.empty() ? "" : "; ") + text.substr(end + 2, text.size() - end - 3);
      }
      const std::string chained = applied(call, all);
      if (all.empty() || chained == call) {
        all += (all.empty() ? "" : " and ") + call;
      } else {
        all = chained;
      }
    });
    if (!complete) {
      return {};
    }
    return losses.empty() ? all : all + " (" + losses + ")";
  }

  // Whether what the target has no type for would stay itself if nothing else were met.
  [[nodiscard]] bool stays_but_for_others() const {
    constexpr Conditions kAlone{Condition::kInexpressibleDType};
    if (!refused.has(Condition::kInexpressibleDType) || refused == kAlone) {
      return false;
    }
    Source rest;
    rest.traits = source.traits;
    rest.traits.conditions = kAlone;
    rest.tensor = source.tensor;
    rest.byte_strides = source.byte_strides;
    return !plan(rest, target, policy, request).is_refused();
  }

  [[nodiscard]] std::string call_for(Condition condition) const {
    // Memory of the host needs no call that would bring it there.
    constexpr Conditions kElsewhere{Condition::kOtherDevice, Condition::kNoWayToDevice};
    if (kElsewhere.has(condition) && Device(source.tensor.device).host_accessible()) {
      return {};
    }
    // What the library makes to be written to is memory that such a target does not want either.
    if (condition == Condition::kReadOnly && target.takes_as_constant &&
        policy[Field::kMutable] == Ruling::kRefuse) {
      return {};
    }
    if (condition == Condition::kNoCast) {
      if (source.tensor.dtype.code != kDLComplex) {
        return {};
      }
      if (request.dtype && request.dtype->code == kDLBool) {
        return "x != 0";
      }
    }
    for (const auto& row : source.traits.words().fixes) {
      if (row.condition == condition && !row.call.empty()) {
        const bool changes = condition == Condition::kCastAsked && may_not_fit();
        return with_dtypes(row.call) + (changes ? " (values that do not fit change)" : "");
      }
    }
    constexpr Conditions kBySource{Condition::kInexpressibleDType, Condition::kPaddedSubByte,
                                   Condition::kWrapperSubclass, Condition::kNulls,
                                   Condition::kUnit};
    return kBySource.has(condition) ? std::string(source.fix) : std::string();
  }

  // A library's own cast to an integer looks at no value, as ours does.
  [[nodiscard]] bool may_not_fit() const {
    return request.dtype && request.dtype->kind() == DType::Kind::kInteger &&
           !holds(*request.dtype, DType(source.tensor.dtype));
  }

  // Empty where the call is a cast, and the target has no type that would hold the values.
  [[nodiscard]] std::string with_dtypes(std::string_view call) const {
    std::string text(call);
    if (text.find("{wide_dtype}") != std::string::npos) {
      const auto wide = holder();
      if (!wide) {
        return {};
      }
      put(text, "{wide_dtype}", to_string(*wide));
    }
    const bool of_booleans = source.tensor.dtype.code == kDLBool;
    while (text.find("{zero}") != std::string::npos) {
      put(text, "{zero}", of_booleans ? "False" : "0");
    }
    put(text, "{to_dtype}", to_string(request.dtype.value_or(DType(source.tensor.dtype))));
    return text;
  }
};

}  // namespace

std::string fix(const Plan& plan, const Source& source, const Capabilities& target,
                const Policy& policy, const Request& request, Dialect dialect) {
  return Adviser{plan.refused, plan.device, source, target, policy, request, advice_of(dialect)}
      .write();
}

void put(std::string& text, std::string_view name, std::string_view value) {
  if (const auto at = text.find(name); at != std::string::npos) {
    text.replace(at, name.size(), value);
  }
}

}  // namespace dlbridge::detail

namespace dlbridge {

ConversionRefused refusal(const OutOfRange& met, Dialect dialect) {
  std::string fix;
  if (const DType holder = holder_of(met); holder.bits != 0) {
    fix = std::string(detail::advice_of(dialect).cast) + " to cast";
    detail::put(fix, "{dtype}", to_string(holder));
  }
  const std::string why =
      "x" + met.place + " is " + met.value + ", which " + to_string(met.to) + " does not hold";
  return {"cannot cast " + to_string(met.from) + " to " + to_string(met.to) + " (" + why + ")" +
              (fix.empty() ? "" : "; use " + fix + ", which holds every element"),
          {why},
          fix};
}

ValueOutOfRange::ValueOutOfRange(OutOfRange met_)
    : ConversionRefused(refusal(met_)), met(std::move(met_)) {}

}  // namespace dlbridge
