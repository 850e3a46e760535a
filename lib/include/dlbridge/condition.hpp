#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
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
  kUninitialised,
  kMasked,
  kUnit,
  kNulls,
  kSwappedBytes,
  kFractionalStrides,
  kScattered,
  kLazy,
  kInexpressibleDType,
  kMixedTypes,
  kPaddedSubByte,
  kReadOnly,
  kCopiesOut,
  kPaddedElements,
  kTraced,
  kNotShared,
  kTooManyDimensions,
  kTooFewDimensions,
  // What the plan finds when it holds the tensor against the target.
  kMutable,
  kOverlap,
  kNegativeStrides,
  kNotCompact,
  kMisaligned,
  kMissingDType,
  kOtherDevice,
  kNoWayToDevice,
  kNoCopyThere,
  kCastAsked,
  kNoCast,
  kMissingAskedDType,
  kOrderAsked,
  kWritableAsked,
  kNothingToWrite,
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
  friend constexpr Conditions operator|(Conditions a, Conditions b) { return a |= b; }
  friend constexpr Conditions operator&(Conditions a, Conditions b) {
    a.bits_ &= b.bits_;
    return a;
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
                                            Condition::kNullData,
                                            Condition::kUninitialised};

/// Conditions under which shape and strides do not say where in memory the values lie.
inline constexpr Conditions kWithoutStrides{Condition::kSparse, Condition::kOpaqueLayout,
                                            Condition::kZeroTensor, Condition::kScattered,
                                            Condition::kLazy};

/// A row of the table of conditions: its name in Python, and how it reads: "cannot view a
/// torch.Tensor {met} as NumPy ({why})". explain() fills in what stands in braces.
struct ConditionRow {
  Condition condition;
  std::string_view name;
  std::string_view met;
  std::string_view why;
};

inline constexpr std::array kConditions = {
    ConditionRow{Condition::kInGraph, "in_graph", "that requires grad",
                 "requires_grad is set, and autograd would not see a write through the view"},
    ConditionRow{Condition::kForwardDual, "forward_dual", "that carries a forward-mode tangent",
                 "the tangent would be lost"},
    ConditionRow{Condition::kConjBit, "conj_bit", "with the conjugate bit set",
                 "its imaginary parts would change sign"},
    ConditionRow{Condition::kNegBit, "neg_bit", "with the negative bit set",
                 "its values would change sign"},
    ConditionRow{Condition::kZeroTensor, "zero_tensor", "that is a zero tensor",
                 "its zeros are not in memory"},
    ConditionRow{Condition::kSparse, "sparse", "with a sparse layout",
                 "its values do not lie where shape and strides would say"},
    ConditionRow{Condition::kOpaqueLayout, "opaque_layout", "with the mkldnn layout",
                 "only mkldnn knows where its values lie"},
    ConditionRow{Condition::kQuantised, "quantised", "that is quantised",
                 "its integers mean nothing without their scale and zero point"},
    ConditionRow{Condition::kNested, "nested", "that is nested",
                 "its parts have shapes of their own"},
    ConditionRow{Condition::kMeta, "meta", "on the meta device", "it has a shape but no values"},
    ConditionRow{Condition::kFake, "fake", "that is a FakeTensor", "it has a shape but no values"},
    ConditionRow{Condition::kFunctorch, "functorch",
                 "inside a function transform such as vmap or grad",
                 "what it stands for exists only inside the transform"},
    ConditionRow{Condition::kFunctionalised, "functionalised", "wrapped for functionalisation",
                 "its values are in another tensor"},
    ConditionRow{Condition::kWrapperSubclass, "wrapper_subclass",
                 "of a wrapper subclass ({detail})", "its values are in other tensors"},
    ConditionRow{Condition::kDispatchSubclass, "dispatch_subclass",
                 "of a subclass with __torch_dispatch__ ({detail})",
                 "its own rules for what its values are would be passed by"},
    ConditionRow{Condition::kFreedStorage, "freed_storage",
                 "whose storage was freed or is smaller than its shape",
                 "there is no memory to read"},
    ConditionRow{Condition::kNullData, "null_data", "whose data is NULL",
                 "there is no memory to read"},
    ConditionRow{Condition::kUninitialised, "uninitialised", "that is not initialised",
                 "it has neither a shape nor values yet"},
    ConditionRow{Condition::kMasked, "masked", "with a mask", "the mask would be lost"},
    ConditionRow{Condition::kUnit, "unit", "with a unit", "the unit would be lost"},
    ConditionRow{Condition::kNulls, "nulls", "with nulls", "a null is no number"},
    ConditionRow{Condition::kSwappedBytes, "swapped_bytes", "in the other byte order",
                 "DLPack carries the machine's own byte order only"},
    ConditionRow{Condition::kFractionalStrides, "fractional_strides",
                 "with strides that are no multiple of the item size",
                 "DLPack counts strides in elements"},
    ConditionRow{Condition::kScattered, "scattered", "whose values no strides reach", "{detail}"},
    ConditionRow{Condition::kLazy, "lazy", "that is no array yet",
                 "its library makes one when it is asked, and that is a copy"},
    ConditionRow{Condition::kInexpressibleDType, "inexpressible_dtype", "of dtype {detail}",
                 "DLPack has no such type"},
    ConditionRow{Condition::kMixedTypes, "mixed_types", "with columns of {detail}",
                 "a tensor has one type"},
    ConditionRow{Condition::kPaddedSubByte, "padded_sub_byte", "of dtype {detail}",
                 "its elements are padded to whole bytes, and would arrive as other numbers"},
    ConditionRow{Condition::kReadOnly, "read_only", "that nobody may write to",
                 "{target} does not know read-only memory"},
    ConditionRow{Condition::kCopiesOut, "copies_out", "",
                 "its library hands out a copy, not its own memory"},
    ConditionRow{Condition::kPaddedElements, "padded_elements",
                 "of dtype {dtype} that is padded to whole bytes",
                 "its elements would be read as packed ones"},
    ConditionRow{Condition::kTraced, "traced", "",
                 "its library traces it, and takes what leaves the trace for a constant"},
    ConditionRow{Condition::kNotShared, "not_shared", "",
                 "other processes cannot map the memory that it is in"},
    ConditionRow{Condition::kTooManyDimensions, "too_many_dimensions", "of {ndim} dimensions",
                 "{target} takes at most {max_ndim}"},
    ConditionRow{Condition::kTooFewDimensions, "too_few_dimensions", "of {ndim} dimensions",
                 "{target} takes at least {min_ndim}"},
    ConditionRow{Condition::kMutable, "mutable", "that may still be written to",
                 "{target} takes memory as constant, and a later write would change what it "
                 "computes"},
    ConditionRow{Condition::kOverlap, "overlap", "whose elements share memory",
                 "one write would change several of them"},
    ConditionRow{Condition::kNegativeStrides, "negative_strides", "with negative strides",
                 "{target} takes none"},
    ConditionRow{Condition::kNotCompact, "not_compact", "that is not C-contiguous",
                 "{target} takes no other layout"},
    ConditionRow{Condition::kMisaligned, "misaligned",
                 "at an address that is no multiple of {alignment} bytes",
                 "{target} needs that alignment"},
    ConditionRow{Condition::kMissingDType, "missing_dtype", "of dtype {dtype}",
                 "{target} has no such type"},
    ConditionRow{Condition::kOtherDevice, "other_device", "on {device}",
                 "the target is on {to_device}"},
    ConditionRow{Condition::kNoWayToDevice, "no_way_to_device", "on {device}", "{unreachable}"},
    ConditionRow{Condition::kNoCopyThere, "no_copy_there", "on {device}",
                 "nothing here can copy it there: {no_runtime}, and its library does not copy when "
                 "asked"},
    ConditionRow{Condition::kCastAsked, "cast_asked", "of dtype {dtype}",
                 "a cast to {to_dtype} was asked for, and a cast is a copy"},
    ConditionRow{Condition::kNoCast, "no_cast", "of dtype {dtype}",
                 "there is no cast to the dtype {to_dtype} that was asked for"},
    ConditionRow{Condition::kMissingAskedDType, "missing_asked_dtype", "of dtype {dtype}",
                 "{target} has no dtype {to_dtype}, which was asked for"},
    ConditionRow{Condition::kOrderAsked, "order_asked", "that is not C-contiguous",
                 "C order was asked for"},
    ConditionRow{Condition::kWritableAsked, "writable_asked", "that nobody may write to there",
                 "writable memory was asked for"},
    ConditionRow{Condition::kNothingToWrite, "nothing_to_write", "",
                 "writable memory was asked for, and {target} gives nobody any"},
    ConditionRow{Condition::kCopiesIn, "copies_in", "",
                 "{target} makes a copy of whatever it is given"},
    ConditionRow{Condition::kCopyAsked, "copy_asked", "", "a copy was asked for"},
};

namespace detail {

constexpr bool every_condition_has_its_row() {
  for (std::size_t i = 0; i < kConditions.size(); ++i) {
    if (kConditions[i].condition != static_cast<Condition>(i)) {
      return false;
    }
  }
  return kConditions.size() == static_cast<std::size_t>(kConditionCount);
}
static_assert(every_condition_has_its_row());

}  // namespace detail

[[nodiscard]] constexpr const ConditionRow& row_of(Condition condition) {
  return kConditions[static_cast<std::size_t>(condition)];
}

/// The condition of that name, or nothing.
[[nodiscard]] constexpr std::optional<Condition> condition_named(std::string_view name) {
  for (const auto& row : kConditions) {
    if (row.name == name) {
      return row.condition;
    }
  }
  return std::nullopt;
}

}  // namespace dlbridge
