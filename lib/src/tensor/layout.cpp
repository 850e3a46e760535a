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
  if (element_count(tensor) == 0) {  // whatever its strides are: NumPy's are all 0
    return false;
  }
  std::array<Dimension, kMaxDimensions> dimensions;
  int count = 0;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
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

std::optional<Extent> extent_of(const DLTensor& tensor, std::uint64_t flags) noexcept {
  __extension__ using Wide = __int128;
  constexpr Wide kMost = Wide{1} << 62;
  const auto data = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (element_count(tensor) == 0) {
    return Extent{data, data};
  }
  Wide lowest = 0;  // in elements
  Wide highest = tensor.strides == nullptr ? Wide{element_count(tensor)} - 1 : 0;
  for (std::int32_t i = 0; i < tensor.ndim && tensor.strides != nullptr; ++i) {
    const Wide reach = Wide{tensor.shape[i] - 1} * tensor.strides[i];
    if (reach > kMost || reach < -kMost) {
      return std::nullopt;
    }
    (reach < 0 ? lowest : highest) += reach;
  }
  const DType dtype(tensor.dtype);
  const bool padded = (flags & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0;
  const Wide bits = padded ? 8 * dtype.itemsize() : dtype.element_bits();
  const Wide origin = Wide{data} + tensor.byte_offset;
  // Of elements of less than a byte the first may begin inside of one.
  const Wide first = origin - (-lowest * bits + 7) / 8;
  const Wide end = origin + ((highest + 1) * bits + 7) / 8;
  if (first < 0 || end > kMost) {
    return std::nullopt;
  }
  return Extent{static_cast<std::uintptr_t>(first), static_cast<std::uintptr_t>(end)};
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

void require_sound(const DLTensor& tensor) {
  if (const auto fault = tensor_fault(tensor); !fault.empty()) {
    throw MalformedTensor(fault);
  }
}

std::size_t bytes_to_allocate(DLTensor tensor) {
  tensor.data = &tensor;  // stands in for the memory that is not there yet
  require_sound(tensor);
  return static_cast<std::size_t>(byte_count(tensor));
}

}  // namespace detail
}  // namespace dlbridge
