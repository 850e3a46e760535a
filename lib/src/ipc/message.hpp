#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace dlbridge::detail {

/// Descriptors of one message: Linux's own limit (SCM_MAX_FD).
inline constexpr std::size_t kMostBlocks = 253;

/// What a message begins with, its version in it.
inline constexpr std::array<char, 8> kMagic{'d', 'l', 'b', 's', 'h', 'r', '0', '1'};
struct MessageHead {
  std::array<char, 8> magic{};
  std::uint64_t bytes = 0;  // of the whole message
  std::uint64_t tensors = 0;
  std::uint32_t blocks = 0;
  std::uint32_t mode = 0;
};

/// The head that the bytes begin with. Throws ConversionRefused where it is none.
[[nodiscard]] MessageHead head_of(std::span<const std::byte> bytes);

}  // namespace dlbridge::detail
