#pragma once

#include <cstddef>
#include <cstring>

#include "copy/simd.hpp"

#ifdef __SSE2__
#include <emmintrin.h>

#include <cstdint>
#endif

namespace dlbridge::detail {

#ifdef __SSE2__
inline constexpr std::size_t kStreamed = sizeof(__m128i);

/// So many bytes, to a place that is a multiple of them.
DLBRIDGE_INLINE void stream_word(std::byte* to, const std::byte* from) noexcept {
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), load<__m128i>(from));
}
#endif

/// memcpy that leaves the target out of the cache, and so does not read it first.
inline void stream_bytes(std::byte* to, const std::byte* from, std::size_t count) noexcept {
#ifdef __SSE2__
  constexpr std::size_t kLine = 64;
  const std::size_t to_line = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
  if (count < to_line + kLine) {
    std::memcpy(to, from, count);
    return;
  }
  std::memcpy(to, from, to_line);
  std::size_t done = to_line;
  for (; done + kLine <= count; done += kLine) {
    for (std::size_t i = 0; i < kLine; i += kStreamed) {
      stream_word(to + done + i, from + done + i);
    }
  }
  std::memcpy(to + done, from + done, count - done);
#else
  std::memcpy(to, from, count);
#endif
}

/// Before another thread may look at what was streamed.
inline void finish_streaming() noexcept {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace dlbridge::detail
