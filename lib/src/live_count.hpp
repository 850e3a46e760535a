#pragma once

#include <atomic>
#include <cstdint>

namespace dlbridge::detail {

/// A number that any thread may change, at the cost of a plain addition: each thread counts for
/// itself, and the sum is taken when it is asked for. One counter for all would be the dearest part
/// of a small crossing, even uncontended.
class LiveCount {
 public:
  static void add(std::int64_t change) noexcept {
    if (Tally* here = mine) [[likely]] {
      here->count.store(here->count.load(std::memory_order_relaxed) + change,
                        std::memory_order_relaxed);
    } else {
      add_first(change);
    }
  }

  /// Exact once the other threads' changes have been ordered before the call.
  [[nodiscard]] static std::int64_t sum() noexcept;

 private:
  // Of one thread; afterwards, with what it holds, of the next that needs one. Never freed.
  struct Tally {
    std::atomic<std::int64_t> count{0};  // atomic for the sum's sake; one thread writes
    std::atomic<bool> taken{true};
    Tally* next = nullptr;
  };
  struct Leaver;

  static void add_first(std::int64_t change) noexcept;
  static Tally* take() noexcept;

  static thread_local constinit Tally* mine;
  static std::atomic<Tally*> all;
  static std::atomic<std::int64_t>
      homeless;  // of threads without a tally: nearly ended, or no memory
};

}  // namespace dlbridge::detail
