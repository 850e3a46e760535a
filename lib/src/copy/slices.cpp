#include "copy/slices.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace dlbridge::detail {
namespace {

// Shorter rows are slower to fetch one by one than to gather on the device first.
constexpr std::int64_t kShortestRow = 512;

bool packed(const CopyJob& job, const std::int64_t* strides, std::int64_t itemsize) {
  std::int64_t expected = itemsize;
  for (std::int32_t i = job.ndim - 1; i >= 0; --i) {
    if (job.shape[i] != 1 && strides[i] != expected) {
      return false;
    }
    expected *= job.shape[i];
  }
  return true;
}

}  // namespace

bool source_packed(const CopyJob& job) noexcept {
  return packed(job, job.source_strides_bytes, job.source_dtype.itemsize());
}

bool target_packed(const CopyJob& job) noexcept {
  return packed(job, job.target_strides_bytes, job.target_dtype.itemsize());
}

FlatJob::FlatJob(const CopyJob& original) noexcept : job(original) {
  std::int32_t ndim = 0;
  for (std::int32_t i = 0; i < original.ndim; ++i) {
    const std::int64_t size = original.shape[i];
    const std::int64_t from = original.source_strides_bytes[i];
    const std::int64_t to = original.target_strides_bytes[i];
    if (size == 1) {
      continue;
    }
    const auto last = static_cast<std::size_t>(ndim - 1);
    if (ndim > 0 && source_strides[last] == from * size && target_strides[last] == to * size) {
      shape[last] *= size;
      source_strides[last] = from;
      target_strides[last] = to;
      continue;
    }
    const auto next = static_cast<std::size_t>(ndim++);
    shape[next] = size;
    source_strides[next] = from;
    target_strides[next] = to;
  }
  job.ndim = ndim;
  job.shape = shape.data();
  job.source_strides_bytes = source_strides.data();
  job.target_strides_bytes = target_strides.data();
}

bool FlatJob::plain() const noexcept {
  return job.source_dtype == job.target_dtype && !job.conjugate && !job.negate && !job.swap_bytes;
}

std::int64_t FlatJob::bytes() const noexcept {
  return std::accumulate(job.shape, job.shape + job.ndim, job.target_dtype.itemsize(),
                         std::multiplies<>());
}

bool Slice::source_in_rows() const noexcept {
  if (job.ndim != 2) {
    return false;
  }
  const std::int64_t row = shape[1] * job.source_dtype.itemsize();
  return job.source_strides_bytes[1] == job.source_dtype.itemsize() && row >= kShortestRow &&
         job.source_strides_bytes[0] >= row;
}

CopyJob Slice::into_packed(void* memory) const noexcept {
  CopyJob packing = job;
  packing.target = memory;
  packing.target_strides_bytes = packed_strides.data();
  return packing;
}

CopyJob Slice::from_packed(const void* memory) const noexcept {
  CopyJob unpacking = job;
  unpacking.source = memory;
  unpacking.source_strides_bytes = packed_strides.data();
  unpacking.source_dtype = job.target_dtype;
  unpacking.conjugate = unpacking.negate = unpacking.swap_bytes = false;
  return unpacking;
}

Slices::Slices(const FlatJob& whole, std::int64_t bytes) noexcept : whole_(whole) {
  const CopyJob& job = whole.job;
  inner_bytes_ = job.target_dtype.itemsize();
  dimension_ = job.ndim;
  // From the innermost dimension outwards, as long as whole dimensions fit.
  while (dimension_ > 0 && inner_bytes_ * job.shape[dimension_ - 1] <= bytes) {
    inner_bytes_ *= job.shape[--dimension_];
  }
  if (dimension_ == 0) {
    return;  // all of it in one
  }
  --dimension_;
  const std::int64_t extent = job.shape[dimension_];
  piece_ = std::clamp<std::int64_t>(bytes / inner_bytes_, 1, extent);
  pieces_ = (extent + piece_ - 1) / piece_;
  for (std::int32_t i = 0; i < dimension_; ++i) {
    outer_ *= job.shape[i];
  }
}

void Slices::cut(std::int64_t index, Slice& slice) const noexcept {
  const CopyJob& job = whole_.job;
  slice.job = job;
  if (job.ndim == 0) {
    slice.bytes = inner_bytes_;
    slice.job.shape = slice.shape.data();
    return;
  }
  std::int64_t from = 0;
  std::int64_t to = 0;
  std::int64_t rest = index / pieces_;
  for (std::int32_t i = dimension_ - 1; i >= 0; --i) {
    from += rest % job.shape[i] * job.source_strides_bytes[i];
    to += rest % job.shape[i] * job.target_strides_bytes[i];
    rest /= job.shape[i];
  }
  const bool cut = pieces_ > 1 || outer_ > 1;
  const std::int64_t extent = job.shape[dimension_];
  const std::int64_t begin = cut ? index % pieces_ * piece_ : 0;
  const std::int64_t size = cut ? std::min(piece_, extent - begin) : extent;
  from += begin * job.source_strides_bytes[dimension_];
  to += begin * job.target_strides_bytes[dimension_];
  slice.job.source = static_cast<const char*>(job.source) + from;
  slice.job.target = static_cast<char*>(job.target) + to;
  slice.job.ndim = job.ndim - dimension_;
  slice.job.source_strides_bytes = job.source_strides_bytes + dimension_;
  slice.job.target_strides_bytes = job.target_strides_bytes + dimension_;
  slice.job.shape = slice.shape.data();
  std::copy_n(job.shape + dimension_, slice.job.ndim, slice.shape.data());
  slice.shape[0] = size;
  std::int64_t stride = job.target_dtype.itemsize();
  for (auto i = static_cast<std::size_t>(slice.job.ndim); i-- > 0;) {
    slice.packed_strides[i] = stride;
    stride *= slice.shape[i];
  }
  slice.bytes = stride;
}

}  // namespace dlbridge::detail
