#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace dlbridge::detail {

/// The memory of small blocks, and how many blocks live. Each thread counts for itself, and keeps
/// the memory of what ended on it for what is made there next: without a call of the allocator, and
/// without one counter for all, which would be the dearest parts of a small crossing. No memory is
/// kept under a sanitizer, which could not see a use after free in it.
class BlockMemory {
 public:
  /// Counts one more and gives memory of at least so many bytes; null where there is none.
  [[nodiscard]] static void* take(std::size_t bytes) noexcept {
    Share* here = mine;
    if (here == nullptr || here->spares == 0 || bytes > kSpareBytes) [[unlikely]] {
      return take_new(bytes);
    }
    here->add(1);
    return here->spare[--here->spares];
  }

  /// Counts one less and takes the memory back. `bytes` may be wrong: it only says whether the
  /// memory is worth keeping, and all of it is large enough.
  static void give_back(void* memory, std::size_t bytes) noexcept {
    Share* here = mine;
    if (here == nullptr || here->spares == kSpares || bytes > kSpareBytes) [[unlikely]] {
      give_back_old(memory);
      return;
    }
    here->add(-1);
    here->spare[here->spares++] = memory;
  }

  /// Exact once the other threads' changes have been ordered before the call.
  [[nodiscard]] static std::int64_t live() noexcept;

  /// Gives what the calling thread keeps back to the system.
  static void free_spares() noexcept;

 private:
  static constexpr std::size_t kSpareBytes = 256;  // of a block of nine dimensions
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr std::size_t kSpares = 0;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  static constexpr std::size_t kSpares = 0;
#else
  static constexpr std::size_t kSpares = 16;
#endif
#else
  static constexpr std::size_t kSpares = 16;
#endif

  // Of one thread; afterwards, with what it holds, of the next that needs one. Never freed.
  struct Share {
    std::atomic<std::int64_t> count{0};  // atomic for the sum's sake; one thread writes
    std::size_t spares = 0;
    std::array<void*, std::max<std::size_t>(kSpares, 1)> spare{};
    std::atomic<bool> taken{true};
    Share* next = nullptr;

    void add(std::int64_t change) noexcept {
      count.store(count.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
    }
  };
  struct Leaver;

  [[nodiscard]] static void* take_new(std::size_t bytes) noexcept;
  static void give_back_old(void* memory) noexcept;
  static void count(std::int64_t change) noexcept;
  static Share* take_share() noexcept;

  static thread_local constinit Share* mine;
  static std::atomic<Share*> all;
  static std::atomic<std::int64_t>
      homeless;  // counted by threads without a share: nearly ended, or no memory
};

}  // namespace dlbridge::detail
