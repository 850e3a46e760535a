#pragma once

#include <cstddef>
#include <cstdint>

namespace dlbridge::detail {

/// Words in rows and columns; strides in bytes, of any sign.
struct Plane {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const std::byte* source = nullptr;
  std::int64_t source_row = 0;
  std::int64_t source_column = 0;
  std::byte* target = nullptr;
  std::int64_t target_row = 0;
  std::int64_t target_column = 0;
  bool stream = false;  // past the cache, where the kernel can
};

/// Whether `count` channels of one word each lie packed in pixels, as is common for pictures; the
/// words, or the pixels, may be in the other order.
[[nodiscard]] bool is_interleaved(std::int64_t count, std::int64_t word_step,
                                  std::int64_t pixel_step, std::int64_t width) noexcept;

/// Copies words of `width` bytes: 1, 2, 4, 8 or 16. The two sides do not overlap.
void copy_plane(const Plane& plane, std::size_t width) noexcept;

}  // namespace dlbridge::detail
