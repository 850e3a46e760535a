#include "device/pinned_pool.hpp"

#include <bit>
#include <map>
#include <memory>
#include <utility>

namespace dlbridge::detail {

PinnedPool& PinnedPool::of(DeviceRuntime& runtime) {
  // Never destroyed: tensors that outlive the program's end still give their memory back.
  static auto& mutex = *new std::mutex;
  static auto& pools = *new std::map<DeviceRuntime*, std::unique_ptr<PinnedPool>>;
  const std::lock_guard lock(mutex);
  auto& pool = pools[&runtime];
  if (!pool) {
    pool = std::make_unique<PinnedPool>(runtime);
  }
  return *pool;
}

std::size_t PinnedPool::class_of(std::size_t bytes) noexcept {
  const std::size_t blocks = (bytes + kSmallest - 1) / kSmallest;
  return blocks <= 1 ? 0 : static_cast<std::size_t>(std::bit_width(blocks - 1));
}

PinnedBlock PinnedPool::take(std::size_t bytes) {
  const std::size_t number = class_of(bytes);
  if (number >= kClasses) {
    throw std::bad_alloc();
  }
  {
    const std::lock_guard lock(mutex_);
    auto& idle = idle_[number];
    for (auto& block : idle) {
      if (block.busy.handle != nullptr && !runtime_.has_come(block.busy)) {
        continue;
      }
      std::swap(block, idle.back());
      PinnedBlock taken = idle.back();
      idle.pop_back();
      kept_ -= taken.bytes;
      if (taken.busy.handle != nullptr) {
        runtime_.release(std::exchange(taken.busy, Event{}));
      }
      return taken;
    }
  }
  const std::size_t size = kSmallest << number;
  return {runtime_.allocate_host(size), size, {}};
}

void PinnedPool::give_back(PinnedBlock block) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    if (kept_ + block.bytes <= kMostKept) {
      idle_[class_of(block.bytes)].push_back(block);
      kept_ += block.bytes;
      return;
    }
  } catch (...) {  // no room in the list: as if the pool were full
  }
  try {
    if (block.busy.handle != nullptr) {
      runtime_.synchronise(block.busy);
    }
  } catch (...) {
    return;  // a device that failed may write to it at any time: lost rather than reused
  }
  if (block.busy.handle != nullptr) {
    runtime_.release(block.busy);
  }
  runtime_.free_host(block.memory);
}

void PinnedPool::release_all() {
  const std::lock_guard lock(mutex_);
  for (auto& idle : idle_) {
    while (!idle.empty()) {
      const PinnedBlock block = idle.back();
      if (block.busy.handle != nullptr) {
        runtime_.synchronise(block.busy);
        runtime_.release(block.busy);
      }
      idle.pop_back();
      kept_ -= block.bytes;
      runtime_.free_host(block.memory);
    }
  }
}

}  // namespace dlbridge::detail
