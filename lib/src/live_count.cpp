#include "live_count.hpp"

#include <new>

namespace dlbridge::detail {

thread_local constinit LiveCount::Tally* LiveCount::mine = nullptr;
constinit std::atomic<LiveCount::Tally*> LiveCount::all{nullptr};
constinit std::atomic<std::int64_t> LiveCount::homeless{0};

// Gives the tally back when the thread ends. What the thread counts after that has no home.
struct LiveCount::Leaver {
  bool left = false;
  ~Leaver() {
    left = true;
    if (Tally* here = mine) {
      mine = nullptr;
      here->taken.store(false, std::memory_order_release);
    }
  }
};

std::int64_t LiveCount::sum() noexcept {
  std::int64_t total = homeless.load(std::memory_order_relaxed);
  for (const Tally* each = all.load(std::memory_order_acquire); each != nullptr;
       each = each->next) {
    total += each->count.load(std::memory_order_relaxed);
  }
  return total;
}

LiveCount::Tally* LiveCount::take() noexcept {
  for (Tally* each = all.load(std::memory_order_acquire); each != nullptr; each = each->next) {
    if (!each->taken.exchange(true, std::memory_order_acq_rel)) {
      return each;
    }
  }
  auto* fresh = new (std::nothrow) Tally;
  if (fresh != nullptr) {
    fresh->next = all.load(std::memory_order_relaxed);
    while (!all.compare_exchange_weak(fresh->next, fresh, std::memory_order_release,
                                      std::memory_order_relaxed)) {
    }
  }
  return fresh;
}

void LiveCount::add_first(std::int64_t change) noexcept {
  thread_local Leaver leaver;
  if (!leaver.left) {
    mine = take();
  }
  if (mine == nullptr) {
    homeless.fetch_add(change, std::memory_order_relaxed);
  } else {
    add(change);
  }
}

}  // namespace dlbridge::detail
