#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <vector>

#include "dlbridge/device_runtime.hpp"

namespace dlbridge::detail {

/// Pinned host memory, borrowed from a pool.
struct PinnedBlock {
  void* memory = nullptr;
  std::size_t bytes = 0;  // what it has, at least what was asked for
  Event busy;             // when the device is done with it; null: now
};

/// A runtime's pinned memory, kept for the next copy: asking a driver for it takes longer than the
/// copy. Blocks are powers of two; up to a bound they stay here when they come back. Thread-safe.
class PinnedPool {
 public:
  /// The pool of that runtime; lives as long as the process.
  static PinnedPool& of(DeviceRuntime& runtime);

  explicit PinnedPool(DeviceRuntime& runtime) noexcept : runtime_(runtime) {}

  /// A block that the device is done with. Throws what the runtime throws.
  [[nodiscard]] PinnedBlock take(std::size_t bytes);
  /// Takes a block back; where `busy` is set the device may still be using it.
  void give_back(PinnedBlock block) noexcept;
  /// Gives to the driver what lies here; waits for the device where it has to.
  void release_all();

 private:
  static constexpr std::size_t kSmallest = 4096;
  static constexpr std::size_t kClasses = 48;
  // Enough for the staging of the largest copies, and for a few results.
  static constexpr std::size_t kMostKept = std::size_t{256} << 20;

  [[nodiscard]] static std::size_t class_of(std::size_t bytes) noexcept;

  DeviceRuntime& runtime_;
  std::mutex mutex_;
  std::array<std::vector<PinnedBlock>, kClasses> idle_;
  std::size_t kept_ = 0;
};

}  // namespace dlbridge::detail
