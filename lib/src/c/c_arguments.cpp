#include "c/c_arguments.hpp"

#include <array>
#include <string>

#include "c/c_structs.hpp"
#include "dlbridge/convert.hpp"

namespace dlbridge::detail {
namespace {

// The members of dlbridge_policy, as the fields of Policy follow each other.
constexpr std::array<const char * dlbridge_policy::*, kFieldCount> kPolicyMembers = {
    &dlbridge_policy::grad,     &dlbridge_policy::bits,    &dlbridge_policy::device,
    &dlbridge_policy::layout,   &dlbridge_policy::dtype,   &dlbridge_policy::readonly,
    &dlbridge_policy::mutable_, &dlbridge_policy::overlap,
};

constexpr std::array kCopyRules = {NamedValue<CopyRule>{"when_needed", CopyRule::kWhenNeeded},
                                   NamedValue<CopyRule>{"never", CopyRule::kNever},
                                   NamedValue<CopyRule>{"always", CopyRule::kAlways}};

constexpr std::uint64_t kKnownFlags = DLPACK_FLAG_BITMASK_READ_ONLY |
                                      DLPACK_FLAG_BITMASK_IS_COPIED |
                                      DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED;

Device read_device(const char* name, const char* place) {
  const auto device = device_named(name);
  if (!device) {
    throw UsageError(std::string(place) + " is \"" + name +
                     "\"; use a device of DLPack's such as cpu, cuda or cuda:1");
  }
  return *device;
}

// The host's own kinds of memory go by one name, as in Python.
DeviceSet read_devices(const char* const* names) {
  constexpr const char* kPlace = "dlbridge_capabilities.devices";
  DeviceSet set;
  for_each_text(names, [&](const char* name) {
    if (std::string_view(name) == "any") {
      set = DeviceSet::everything();
      return;
    }
    const std::int32_t type = read_device(name, kPlace).type;
    set = set | (type == kDLCPU ? DeviceSet::host() : DeviceSet::of({type}));
  });
  require_usage(
      !(set == DeviceSet()),
      "dlbridge_capabilities.devices is a list of none; give names, or NULL for the host");
  return set;
}

DTypeSet read_dtypes(const char* const* names) {
  DTypeSet set;
  for_each_text(names, [&](const char* name) {
    (void)read_dtype(name, "dlbridge_capabilities.dtypes");
    set = set | DTypeSet::of_name(name);
  });
  require_usage(!(set == DTypeSet()),
                "dlbridge_capabilities.dtypes is a list of none; give names, or NULL for all");
  return set;
}

Capabilities read_capabilities(const dlbridge_capabilities* pointer) {
  if (pointer == nullptr) {
    Capabilities all = managed_tensor_capabilities();
    all.name = "a managed tensor";
    return all;
  }
  const auto given = read_struct(pointer, "dlbridge_capabilities");
  Capabilities can;
  can.name = given.name == nullptr ? can.name : given.name;
  can.result = can.name;
  can.devices = given.devices == nullptr ? DeviceSet::host() : read_devices(given.devices);
  can.wants_host = can.devices == DeviceSet::host();
  can.dtypes = given.dtypes == nullptr ? DTypeSet::everything() : read_dtypes(given.dtypes);
  can.readonly = ReadOnlySupport::kUnaware;
  if (given.read_only != nullptr) {
    can.readonly =
        row_named(kReadOnlySupports, given.read_only, "dlbridge_capabilities.read_only").value;
  }
  if (given.strides != nullptr) {
    can.strides = row_named(kStrideSupports, given.strides, "dlbridge_capabilities.strides").value;
  }
  if (given.alignment != 0) {
    require_usage(Alignment::allows(given.alignment),
                  (std::string("dlbridge_capabilities.alignment") + Alignment::kWhyNot).c_str());
    can.alignment = given.alignment;
  }
  can.min_dimensions = given.min_dimensions;
  if (given.max_dimensions != 0) {
    can.max_dimensions = given.max_dimensions;
  }
  require_usage(can.min_dimensions >= 0 && can.min_dimensions <= can.max_dimensions &&
                    can.max_dimensions <= kMaxDimensions,
                "dlbridge_capabilities.min_dimensions and max_dimensions are to be in order and "
                "between 0 and 64");
  can.reads_unaligned = given.reads_unaligned != 0;
  can.gives_writable = given.never_writable == 0;
  can.takes_as_constant = given.takes_as_constant != 0;
  can.guards_overlap = given.guards_overlap != 0;
  can.carries_padding = given.carries_padding != 0;
  require_usage(given.reserved == 0, "dlbridge_capabilities.reserved is to be zero");
  return can;
}

Request read_request(const dlbridge_request& given) {
  Request request;
  if (given.dtype != nullptr) {
    request.dtype = read_dtype(given.dtype, "dlbridge_request.dtype");
  }
  if (given.device != nullptr) {
    request.device = read_device(given.device, "dlbridge_request.device");
  }
  request.c_order = given.c_order != 0;
  request.writable = given.writable != 0;
  return request;
}

}  // namespace

DType read_dtype(const char* name, const char* place) {
  return row_named(kNamedDTypes, name, place).dtype;
}

void require_known(std::uint64_t flags) {
  require_usage((flags & ~kKnownFlags) == 0,
                "flags has a bit that DLPack 1.3 does not know; use DLPACK_FLAG_BITMASK_...");
}

void read_library(const dlbridge_library* pointer, Library& library) {
  const auto given = read_struct(pointer, "dlbridge_library");
  if (given.name != nullptr) {
    library.name = given.name;
  }
  if (given.object != nullptr) {
    library.object = given.object;
  }
  std::size_t count = 0;
  const char* condition = nullptr;
  for_each_text(given.fixes, [&](const char* text) {
    if (condition == nullptr) {
      condition = text;
      return;
    }
    require_usage(count < library.fixes.size(), "dlbridge_library.fixes has more than 20 pairs");
    library.fixes[count++] = {
        row_named(kConditions, condition, "a condition in dlbridge_library.fixes").condition, text};
    condition = nullptr;
  });
  require_usage(condition == nullptr,
                "dlbridge_library.fixes ends with a condition that has no call");
}

Policy read_policy(const dlbridge_policy* pointer) {
  if (pointer == nullptr) {
    return {};
  }
  const auto given = read_struct(pointer, "dlbridge_policy");
  Policy policy;
  if (given.preset != nullptr) {
    const auto preset = policy_named(given.preset);
    if (!preset) {
      throw UsageError(std::string("dlbridge_policy.preset is \"") + given.preset +
                       "\"; use one of strict, host, zero_copy, snapshot");
    }
    policy = *preset;
  }
  for (std::size_t i = 0; i < kFields.size(); ++i) {
    if (const char* text = given.*kPolicyMembers[i]; text != nullptr) {
      const std::string place = "dlbridge_policy." + std::string(kFields[i].name);
      policy = policy.with(static_cast<Field>(i), row_named(kFields[i].values, text, place).ruling);
    }
  }
  if (given.copy != nullptr) {
    policy = policy.with_copy(row_named(kCopyRules, given.copy, "dlbridge_policy.copy").value);
  }
  return policy;
}

Call::Call(const dlbridge_capabilities* target_, const dlbridge_policy* policy_,
           const dlbridge_request* request_) {
  const auto given = read_struct(request_, "dlbridge_request");
  warning_ = given.warning;
  tell(CastWarning::kNone);  // an output: set also where the rest is wrong
  target = read_capabilities(target_);
  policy = read_policy(policy_);
  request = read_request(given);
}

Plan Call::accepted_plan(const Source& source) const {
  Plan decided = plan(source, target, policy, request);
  if (decided.is_refused()) {
    throw refusal(decided, source, target, policy, request, Dialect::kC);
  }
  return decided;
}

void Call::tell(CastWarning met) const noexcept {
  if (warning_ != nullptr) {
    *warning_ = met == CastWarning::kInvalid    ? "invalid"
                : met == CastWarning::kOverflow ? "overflow"
                                                : nullptr;
  }
}

}  // namespace dlbridge::detail
