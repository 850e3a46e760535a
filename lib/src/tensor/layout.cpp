#include "tensor/layout.hpp"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <memory>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {
namespace {

struct Dimension {
  std::int64_t size;
  std::int64_t stride;  // magnitude: the direction does not change which elements meet
};

constexpr std::int64_t kExactSpan = 1 << 16;

// Marks every element's place; the first that is marked already ends it.
bool meets_itself(const Dimension* dimensions, int count, std::int64_t offset,
                  std::bitset<kExactSpan>& seen) {
  if (count == 0) {
    const auto place = static_cast<std::size_t>(offset);
    if (seen.test(place)) {
      return true;
    }
    seen.set(place);
    return false;
  }
  for (std::int64_t i = 0; i < dimensions->size; ++i) {
    if (meets_itself(dimensions + 1, count - 1, offset + i * dimensions->stride, seen)) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool overlaps_itself(const DLTensor& tensor) {
  std::array<Dimension, kMaxDimensions> dimensions;
  int count = 0;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] == 0) {
      return false;
    }
    if (tensor.shape[i] > 1) {
      const auto stride = tensor.strides[i];
      if (stride == 0) {
        return true;
      }
      dimensions[static_cast<std::size_t>(count++)] = {tensor.shape[i], std::abs(stride)};
    }
  }
  std::sort(dimensions.begin(), dimensions.begin() + count,
            [](const Dimension& a, const Dimension& b) { return a.stride < b.stride; });
  std::int64_t reach = 0;
  bool nested = true;
  for (int i = 0; i < count; ++i) {
    const auto& dimension = dimensions[static_cast<std::size_t>(i)];
    nested = nested && dimension.stride > reach;
    reach += (dimension.size - 1) * dimension.stride;
  }
  if (nested) {
    return false;
  }
  if (reach >= kExactSpan) {
    return true;
  }
  auto seen = std::make_unique<std::bitset<kExactSpan>>();
  return meets_itself(dimensions.data(), count, 0, *seen);
}

namespace detail {

bool has_negative_stride(const DLTensor& tensor) noexcept {
  bool negative = false;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] == 0) {
      return false;
    }
    negative = negative || (tensor.shape[i] > 1 && tensor.strides[i] < 0);
  }
  return negative;
}

std::size_t bytes_to_allocate(DLTensor tensor) {
  tensor.data = &tensor;  // stands in for the memory that is not there yet
  if (const auto fault = tensor_fault(tensor); !fault.empty()) {
    throw MalformedTensor(fault);
  }
  return static_cast<std::size_t>(byte_count(tensor));
}

}  // namespace detail
}  // namespace dlbridge
