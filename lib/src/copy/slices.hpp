#pragma once

#include <array>
#include <cstdint>

#include "dlbridge/copy.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::detail {

/// Whether the source, or the target, lies in C order without gaps.
[[nodiscard]] bool source_packed(const CopyJob& job) noexcept;
[[nodiscard]] bool target_packed(const CopyJob& job) noexcept;

/// A copy with as few dimensions as its steps on both sides allow, and the arrays that it reads.
/// Not to be copied or moved: the job points into it.
struct FlatJob {
  explicit FlatJob(const CopyJob& original) noexcept;
  FlatJob(const FlatJob&) = delete;
  FlatJob& operator=(const FlatJob&) = delete;

  /// Nothing but bytes to be moved: the same type on both sides, and nothing to be done to it.
  [[nodiscard]] bool plain() const noexcept;
  /// Bytes of the target's elements, packed.
  [[nodiscard]] std::int64_t bytes() const noexcept;

  CopyJob job;
  std::array<std::int64_t, kMaxDimensions> shape;           // NOLINT: filled as far as used
  std::array<std::int64_t, kMaxDimensions> source_strides;  // NOLINT
  std::array<std::int64_t, kMaxDimensions> target_strides;  // NOLINT
};

/// A piece of a copy: a job of its own, over the arrays of the job that it was cut from.
struct Slice {
  CopyJob job;
  std::int64_t bytes = 0;                                   // of the target's elements, packed
  std::array<std::int64_t, kMaxDimensions> shape;           // NOLINT: filled as far as used
  std::array<std::int64_t, kMaxDimensions> packed_strides;  // NOLINT: bytes, in C order

  /// Whether the source is rows without gaps within, at one distance: what the copy engine of a
  /// device takes as it is.
  [[nodiscard]] bool source_in_rows() const noexcept;

  /// The slice with its target, or its source, replaced by packed memory of the target's type.
  [[nodiscard]] CopyJob into_packed(void* memory) const noexcept;
  [[nodiscard]] CopyJob from_packed(const void* memory) const noexcept;
};

/// A copy cut along its outermost dimensions into slices that follow one another in C order, none
/// larger than a staging buffer (but one element, where that is larger).
class Slices {
 public:
  Slices(const FlatJob& whole, std::int64_t bytes) noexcept;
  [[nodiscard]] std::int64_t count() const noexcept { return outer_ * pieces_; }
  /// Fills `slice` with the one of that index.
  void cut(std::int64_t index, Slice& slice) const noexcept;

 private:
  const FlatJob& whole_;
  std::int32_t dimension_ = 0;  // the one that is cut; those outside are stepped through one by one
  std::int64_t outer_ = 1;
  std::int64_t pieces_ = 1;
  std::int64_t piece_ = 1;  // indices of that dimension in a slice
  std::int64_t inner_bytes_ = 0;
};

}  // namespace dlbridge::detail
