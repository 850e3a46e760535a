// Sources and targets for the tests of plan(): objects that are described and exist nowhere, so
// that a plan which looked at their memory would crash.
#pragma once

#include <array>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dlbridge/plan.hpp"

namespace dlbridge::cases {

inline constexpr Library kShelf{
    .name = "shelf",
    .object = "shelf.Book",
    .fixes = {{
        {Condition::kInGraph, "x.detach()"},
        {Condition::kConjBit, "x.resolve_conj()"},
        {Condition::kDispatchSubclass, "copied(x, x.size)"},
        {Condition::kQuantised, "x.dequantize()"},
        {Condition::kMasked, "x.filled()"},
        {Condition::kOtherDevice, "x.home()"},
    }},
};

// What a source is made from; a plain value, unlike Source.
struct Spec {
  Conditions conditions{};
  DType dtype{kDLFloat, 32};
  Device device{};
  std::vector<std::int64_t> shape{2, 3};
  std::vector<std::int64_t> strides{3, 1};  // elements
  std::uintptr_t address = 0x10000;
  std::uint64_t byte_offset = 0;
  bool copies_to_host = true;
  bool copies_there = true;
  bool can_prepare = true;
  bool is_copy = false;
  std::string detail{};
  std::string fix{};
};

// A Source that borrows from the Spec it keeps.
class Described {
 public:
  explicit Described(Spec spec) : spec_(std::move(spec)) {
    source_.traits.library = &kShelf;
    source_.traits.conditions = spec_.conditions;
    source_.traits.copies_to_host = spec_.copies_to_host;
    source_.traits.copies_there = spec_.copies_there;
    source_.traits.can_prepare = spec_.can_prepare;
    source_.traits.is_copy = spec_.is_copy;
    source_.tensor.data = reinterpret_cast<void*>(spec_.address);
    source_.tensor.byte_offset = spec_.byte_offset;
    source_.tensor.device = spec_.device.dl();
    source_.tensor.dtype = spec_.dtype.dl();
    source_.tensor.ndim = static_cast<std::int32_t>(spec_.shape.size());
    source_.tensor.shape = spec_.shape.data();
    source_.tensor.strides = spec_.strides.data();
    source_.detail = spec_.detail;
    source_.fix = spec_.fix;
  }
  [[nodiscard]] const Source& source() const { return source_; }

 private:
  Spec spec_;
  Source source_;
};

inline constexpr DTypeSet kPlainTypes =
    DTypeSet::of({"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                  "float16", "float32", "float64", "complex64", "complex128"});

// As NumPy with ml_dtypes: reads the host only, honours read-only, takes every stride and address.
inline constexpr Capabilities kHostOnly{
    .name = "Host",
    .result = "host.array",
    .devices = DeviceSet::host(),
    .wants_host = true,
    .dtypes = kPlainTypes,
    .extension_dtypes = DTypeSet::of({"bfloat16", "float8_e4m3fn", "float8_e8m0fnu"}),
    .reads_unaligned = true,
};

// As torch: knows no read-only, refuses writes into overlaps itself, no negative strides.
inline constexpr Capabilities kTorchLike{
    .name = "Flame",
    .result = "flame.Tensor",
    .devices = DeviceSet::of({kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged, kDLCUDA}),
    .copies_to_device = true,
    .dtypes = kPlainTypes | DTypeSet::of({"bfloat16", "float8_e4m3fn", "float8_e8m0fnu"}),
    .readonly = ReadOnlySupport::kUnaware,
    .guards_overlap = true,
    .strides = StrideSupport::kNonNegative,
};

// As a legacy capsule: carries everything but the word that nobody may write.
inline constexpr Capabilities kLegacyLike{
    .name = "a legacy capsule",
    .result = "PyCapsule",
    .devices = DeviceSet::everything(),
    .dtypes = DTypeSet::everything(),
    .readonly = ReadOnlySupport::kNever,
    .reads_unaligned = true,
};

// As JAX: C order and 64-byte alignment only, knows no read-only and guards nothing.
inline constexpr Capabilities kCompact{
    .name = "Compact",
    .result = "compact.Array",
    .devices = DeviceSet::of({kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged, kDLCUDA}),
    .dtypes = kPlainTypes | DTypeSet::of({"bfloat16", "float8_e4m3fn", "float8_e8m0fnu"}),
    .readonly = ReadOnlySupport::kUnaware,
    .strides = StrideSupport::kCompact,
    .alignment = 64,
};

// As an array library whose arrays never change.
inline constexpr Capabilities kConstant{
    .name = "Rock",
    .result = "rock.Array",
    .devices = DeviceSet::everything(),
    .dtypes = DTypeSet::everything(),
    .gives_writable = false,
    .takes_as_constant = true,
};

struct Preset {
  std::string_view name;
  Policy policy;
};
inline constexpr std::array<Preset, 4> kPresets = {{{"strict", Policy::strict()},
                                                    {"host", Policy::host()},
                                                    {"zero_copy", Policy::zero_copy()},
                                                    {"snapshot", Policy::snapshot()}}};

[[nodiscard]] inline Request as_type(DType dtype) {
  return {dtype, {}};
}
[[nodiscard]] inline Request on_device(Device device) {
  return {{}, device};
}

// A plan as one letter of the policy table: Refused, Copy, view that is read-Only, View.
[[nodiscard]] inline char outcome(const Plan& plan) {
  if (plan.is_refused()) {
    return 'R';
  }
  if (!plan.view) {
    return 'C';
  }
  return plan.writable ? 'V' : 'O';
}

[[nodiscard]] inline Plan plan_of(const Spec& spec, const Capabilities& target,
                                  const Policy& policy, const Request& request = {}) {
  return plan(Described(spec).source(), target, policy, request);
}

// What a row of the policy table is about: two rows meet in one source unless both are about the
// same thing.
enum class Aspect { kTrait, kDType, kDevice, kLayout };

// A row of the policy table. The letters are the cells under strict, host, zero_copy, snapshot.
struct Row {
  std::string name;
  Aspect aspect;
  void (*make)(Spec& spec);
  std::string host;
  std::string torch;
  std::string legacy;
  std::string compact;
  Conditions refusing;  // what may refuse, and nothing else
  Step step;            // what copies under host, where something does
};

inline void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

// The policy table of the design, and what it leaves to "strides or alignment the target cannot
// take" spelt out.
[[nodiscard]] const std::vector<Row>& policy_table();

}  // namespace dlbridge::cases
