#pragma once

#include <cstdint>
#include <string_view>

namespace dlbridge {

/// Everything that can stand between a source and a target. A set of them, as one word, is what a
/// bridge says of its object (Traits) and what a Plan gives as its reasons.
enum class Condition : std::uint8_t {
  // What a producer says of its object; DLPack cannot carry any of it.
  kInGraph,
  kForwardDual,
  kConjBit,
  kNegBit,
  kZeroTensor,
  kSparse,
  kOpaqueLayout,
  kQuantised,
  kNested,
  kMeta,
  kFake,
  kFunctorch,
  kFunctionalised,
  kWrapperSubclass,
  kDispatchSubclass,
  kFreedStorage,
  kNullData,
  kMasked,
  kSwappedBytes,
  kFractionalStrides,
  kReadOnly,
  kInexpressibleDType,
  kPaddedSubByte,
  kCopiesOut,
  kPaddedElements,
  kTooManyDimensions,
  kTooFewDimensions,
  // What the plan finds when it holds the tensor against the target.
  kOverlap,
  kNegativeStrides,
  kNotCompact,
  kMisaligned,
  kMissingDType,
  kOtherDevice,
  kNoWayToDevice,
  kCastAsked,
  kNoCast,
  kCopiesIn,
  kCopyAsked,
  kCount,
};

inline constexpr int kConditionCount = static_cast<int>(Condition::kCount);

/// A set of conditions.
class Conditions {
 public:
  constexpr Conditions() = default;
  constexpr Conditions(std::initializer_list<Condition> conditions) {
    for (auto condition : conditions) {
      add(condition);
    }
  }
  constexpr void add(Condition condition) { bits_ |= bit(condition); }
  constexpr void add_if(bool holds, Condition condition) { bits_ |= holds ? bit(condition) : 0; }
  constexpr void remove(Condition condition) { bits_ &= ~bit(condition); }
  [[nodiscard]] constexpr bool has(Condition condition) const {
    return (bits_ & bit(condition)) != 0;
  }
  [[nodiscard]] constexpr bool empty() const { return bits_ == 0; }
  [[nodiscard]] constexpr bool meets(Conditions other) const { return (bits_ & other.bits_) != 0; }
  constexpr Conditions& operator|=(Conditions other) {
    bits_ |= other.bits_;
    return *this;
  }
  friend constexpr bool operator==(Conditions, Conditions) = default;

  /// Calls `visit(Condition)` for each, in the order of the enumeration.
  template <typename Visit>
  constexpr void for_each(Visit&& visit) const {
    for (auto rest = bits_; rest != 0; rest &= rest - 1) {
      visit(static_cast<Condition>(__builtin_ctzll(rest)));
    }
  }

 private:
  static constexpr std::uint64_t bit(Condition condition) {
    return std::uint64_t{1} << static_cast<unsigned>(condition);
  }
  std::uint64_t bits_ = 0;
};

/// Conditions without which an object has no memory of its own that could be looked at.
inline constexpr Conditions kWithoutStorage{Condition::kMeta,
                                            Condition::kFake,
                                            Condition::kFunctorch,
                                            Condition::kFunctionalised,
                                            Condition::kWrapperSubclass,
                                            Condition::kFreedStorage,
                                            Condition::kNullData};

}  // namespace dlbridge
