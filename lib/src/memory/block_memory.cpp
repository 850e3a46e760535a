#include "memory/block_memory.hpp"

#include <cstdlib>
#include <new>

namespace dlbridge::detail {

thread_local constinit BlockMemory::Share* BlockMemory::mine = nullptr;
constinit std::atomic<BlockMemory::Share*> BlockMemory::all{nullptr};
constinit std::atomic<std::int64_t> BlockMemory::homeless{0};

// Gives the share back when the thread ends. What the thread counts after that has no home.
struct BlockMemory::Leaver {
  bool left = false;
  ~Leaver() {
    left = true;
    if (Share* here = mine) {
      mine = nullptr;
      here->taken.store(false, std::memory_order_release);
    }
  }
};

std::int64_t BlockMemory::live() noexcept {
  std::int64_t total = homeless.load(std::memory_order_relaxed);
  for (const Share* each = all.load(std::memory_order_acquire); each != nullptr;
       each = each->next) {
    total += each->count.load(std::memory_order_relaxed);
  }
  return total;
}

BlockMemory::Share* BlockMemory::take_share() noexcept {
  for (Share* each = all.load(std::memory_order_acquire); each != nullptr; each = each->next) {
    if (!each->taken.exchange(true, std::memory_order_acq_rel)) {
      return each;
    }
  }
  auto* fresh = new (std::nothrow) Share;
  if (fresh != nullptr) {
    fresh->next = all.load(std::memory_order_relaxed);
    while (!all.compare_exchange_weak(fresh->next, fresh, std::memory_order_release,
                                      std::memory_order_relaxed)) {
    }
  }
  return fresh;
}

void BlockMemory::count(std::int64_t change) noexcept {
  if (mine == nullptr) {
    thread_local Leaver leaver;
    if (!leaver.left) {
      mine = take_share();
    }
  }
  if (Share* here = mine) {
    here->add(change);
  } else {
    homeless.fetch_add(change, std::memory_order_relaxed);
  }
}

void* BlockMemory::take_new(std::size_t bytes) noexcept {
  void* memory = std::malloc(kSpares == 0 ? bytes : std::max(bytes, kSpareBytes));
  if (memory != nullptr) {
    count(1);
  }
  return memory;
}

void BlockMemory::give_back_old(void* memory) noexcept {
  std::free(memory);
  count(-1);
}

void BlockMemory::free_spares() noexcept {
  if (Share* here = mine) {
    while (here->spares != 0) {
      std::free(here->spare[--here->spares]);
    }
  }
}

}  // namespace dlbridge::detail
