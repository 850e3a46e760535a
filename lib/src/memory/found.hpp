#pragma once

#include <atomic>
#include <cstdint>

namespace dlbridge::detail {

/// What `kFind` answers: asked once, or by several threads that find the same (and again each time
/// if it is negative). Not a static variable of a function: its lock stays shut for good in a
/// process that is forked while another thread finds its value.
template <auto kFind>
[[nodiscard]] std::int64_t found() noexcept {
  static constinit std::atomic<std::int64_t> known{-1};
  std::int64_t value = known.load(std::memory_order_relaxed);
  if (value < 0) [[unlikely]] {
    value = static_cast<std::int64_t>(kFind());
    known.store(value, std::memory_order_relaxed);
  }
  return value;
}

}  // namespace dlbridge::detail
