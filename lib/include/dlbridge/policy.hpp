#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace dlbridge {

/// The fields of a Policy. Each says what may happen in one kind of case.
enum class Field : std::uint8_t {
  kGrad,
  kBits,
  kDevice,
  kLayout,
  kDType,
  kReadOnly,
  kMutable,
  kOverlap
};
inline constexpr int kFieldCount = 8;

/// The values of the fields, one enumeration for all: a field takes those that its row allows.
enum class Ruling : std::uint8_t {
  kRefuse,
  kDetach,
  kDetachWritable,
  kResolve,
  kCopy,
  kDensify,
  kMlDTypes,
  kUpcast,
  kBits,
  kAlias,
  kReadOnlyView,
};

/// A row of the table of fields: its name in Python, and the names of its values, default first.
struct FieldRow {
  struct Value {
    std::string_view name{};
    Ruling ruling{};
  };
  std::string_view name{};
  std::array<Value, 4> values;  // a value without a name does not exist
};

inline constexpr std::array<FieldRow, kFieldCount> kFields = {{
    {"grad",
     {{{"detach", Ruling::kDetach},
       {"refuse", Ruling::kRefuse},
       {"detach_writable", Ruling::kDetachWritable}}}},
    {"bits", {{{"resolve", Ruling::kResolve}, {"refuse", Ruling::kRefuse}}}},
    {"device", {{{"copy", Ruling::kCopy}, {"refuse", Ruling::kRefuse}}}},
    {"layout", {{{"refuse", Ruling::kRefuse}, {"densify", Ruling::kDensify}}}},
    {"dtype",
     {{{"ml_dtypes", Ruling::kMlDTypes},
       {"upcast", Ruling::kUpcast},
       {"bits", Ruling::kBits},
       {"refuse", Ruling::kRefuse}}}},
    {"readonly",
     {{{"copy", Ruling::kCopy}, {"refuse", Ruling::kRefuse}, {"alias", Ruling::kAlias}}}},
    {"mutable",
     {{{"alias", Ruling::kAlias}, {"copy", Ruling::kCopy}, {"refuse", Ruling::kRefuse}}}},
    {"overlap",
     {{{"readonly", Ruling::kReadOnlyView}, {"copy", Ruling::kCopy}, {"refuse", Ruling::kRefuse}}}},
}};

namespace detail {

// Apart: what it throws needs a text, which no constant can hold.
[[noreturn]] inline void refuse_ruling(const FieldRow& row) {
  std::string text = "no such ruling of the field '" + std::string(row.name) + "'; use that of";
  for (const auto& value : row.values) {
    text += value.name.empty() ? "" : " '" + std::string(value.name) + "'";
  }
  throw std::invalid_argument(text);
}

}  // namespace detail

/// Whether a copy may be made: when it is needed, never, or always (the array API's `copy=`).
enum class CopyRule : std::uint8_t { kWhenNeeded, kNever, kAlways };

/// What the caller of a conversion allows. A plain value; the default is the preset `host`.
class Policy {
 public:
  constexpr Policy() = default;

  [[nodiscard]] constexpr Ruling operator[](Field field) const {
    return rulings_[static_cast<std::size_t>(field)];
  }
  /// Throws std::invalid_argument for a ruling that the field's row does not have; in a constant,
  /// that does not compile.
  [[nodiscard]] constexpr Policy with(Field field, Ruling ruling) const {
    const FieldRow& row = kFields[static_cast<std::size_t>(field)];
    bool known = false;
    for (const auto& value : row.values) {
      known = known || (!value.name.empty() && value.ruling == ruling);
    }
    if (!known) {
      detail::refuse_ruling(row);
    }
    Policy policy = *this;
    policy.rulings_[static_cast<std::size_t>(field)] = ruling;
    return policy;
  }
  [[nodiscard]] constexpr CopyRule copy() const { return copy_; }
  [[nodiscard]] constexpr Policy with_copy(CopyRule rule) const {
    Policy policy = *this;
    policy.copy_ = rule;
    return policy;
  }

  /// The presets, by the names that Python uses for them.
  [[nodiscard]] static constexpr Policy host() { return Policy(); }
  [[nodiscard]] static constexpr Policy zero_copy() { return Policy().with_copy(CopyRule::kNever); }
  [[nodiscard]] static constexpr Policy snapshot() { return Policy().with_copy(CopyRule::kAlways); }
  [[nodiscard]] static constexpr Policy strict() {
    Policy policy = zero_copy();
    for (auto& ruling : policy.rulings_) {
      ruling = Ruling::kRefuse;
    }
    return policy.with(Field::kOverlap, Ruling::kReadOnlyView);
  }

  friend constexpr bool operator==(const Policy&, const Policy&) = default;

 private:
  // Known when this is compiled: a default argument then costs one move.
  static constexpr std::array<Ruling, kFieldCount> kDefaults = [] {
    std::array<Ruling, kFieldCount> defaults{};
    for (std::size_t i = 0; i < kFields.size(); ++i) {
      defaults[i] = kFields[i].values[0].ruling;
    }
    return defaults;
  }();

  std::array<Ruling, kFieldCount> rulings_ = kDefaults;
  CopyRule copy_ = CopyRule::kWhenNeeded;
};

/// The preset of that name ("strict", "host", "zero_copy", "snapshot"), or nothing.
[[nodiscard]] constexpr std::optional<Policy> policy_named(std::string_view name) {
  if (name == "host") {
    return Policy::host();
  }
  if (name == "strict") {
    return Policy::strict();
  }
  if (name == "zero_copy") {
    return Policy::zero_copy();
  }
  if (name == "snapshot") {
    return Policy::snapshot();
  }
  return std::nullopt;
}

}  // namespace dlbridge
