#include "guarded/guarded_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

namespace dlbridge::guarded {
namespace {

// Addresses of a device; only what is written takes memory.
constexpr std::size_t kArenaBytes = std::size_t{2} << 30;
constexpr std::size_t kAlignment = 256;
// Between two allocations, so that none begins where another ends.
constexpr std::size_t kGap = 256;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

std::size_t page_bytes() {
  static const auto kBytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return kBytes;
}

std::byte* mapped(void* memory) {
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  return static_cast<std::byte*>(memory);
}

std::uintptr_t number(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address);
}

}  // namespace

bool Memory::Arena::holds(const void* address) const noexcept {
  return number(address) >= number(closed) && number(address) < number(closed) + kArenaBytes;
}

Memory::Memory(int devices) {
  for (int i = 0; i < devices; ++i) {
    Arena arena;
    arena.file = memfd_create("guarded device", MFD_CLOEXEC);
    if (arena.file < 0 || ftruncate(arena.file, static_cast<off_t>(kArenaBytes)) != 0) {
      throw std::bad_alloc();
    }
    arena.closed =
        mapped(mmap(nullptr, kArenaBytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, arena.file, 0));
    arena.open = mapped(mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_NORESERVE, arena.file, 0));
    arenas_.push_back(arena);
  }
}

Memory::~Memory() {
  for (const Arena& arena : arenas_) {
    munmap(arena.closed, kArenaBytes);
    munmap(arena.open, kArenaBytes);
    close(arena.file);
  }
  for (const auto& [address, block] : blocks_) {
    if (block.kind != MemoryKind::kDevice) {
      munmap(block.address, round_up(block.bytes, page_bytes()));
    }
  }
  for (const auto& [address, bytes] : ended_mappings_) {
    munmap(address, bytes);
  }
}

void* Memory::allocate(MemoryKind kind, int device, std::size_t bytes) {
  if (bytes == 0) {
    return nullptr;
  }
  return kind == MemoryKind::kDevice
             ? take(arenas_.at(static_cast<std::size_t>(device)), device, bytes)
             : map(kind, bytes);
}

void* Memory::take(Arena& arena, int device, std::size_t bytes) {
  // Addresses are not given out again while anything lives, so that a late use is seen as one.
  const bool empty = std::none_of(blocks_.begin(), blocks_.end(), [&](const auto& entry) {
    return arena.holds(entry.second.address);
  });
  if (empty && arena.used != 0) {
    fallocate(arena.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
              static_cast<off_t>(round_up(arena.used, page_bytes())));
    arena.used = 0;
  }
  if (bytes > kArenaBytes || arena.used + round_up(bytes, kAlignment) + kGap > kArenaBytes) {
    throw std::bad_alloc();
  }
  Block block{.kind = MemoryKind::kDevice,
              .device = device,
              .bytes = bytes,
              .address = arena.closed + arena.used,
              .alias = arena.open + arena.used};
  arena.used += round_up(bytes, kAlignment) + kGap;
  std::memset(block.alias, kFresh, bytes);
  blocks_.emplace(number(block.address), block);
  return block.address;
}

void* Memory::map(MemoryKind kind, std::size_t bytes) {
  std::byte* address = mapped(mmap(nullptr, round_up(bytes, page_bytes()), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memset(address, kFresh, bytes);
  blocks_.emplace(number(address),
                  Block{.kind = kind, .bytes = bytes, .address = address, .alias = address});
  return address;
}

Block* Memory::give_back(void* address) noexcept {
  const auto found = blocks_.find(number(address));
  if (found == blocks_.end() || found->second.given_back) {
    return nullptr;
  }
  found->second.given_back = true;
  return &found->second;
}

void Memory::end(void* address) noexcept {
  const auto found = blocks_.find(number(address));
  if (found == blocks_.end()) {
    return;
  }
  const Block block = found->second;
  blocks_.erase(found);
  std::memset(block.alias, kPoison, block.bytes);
  if (block.kind != MemoryKind::kDevice) {
    const std::size_t bytes = round_up(block.bytes, page_bytes());
    madvise(block.address, bytes, MADV_DONTNEED);
    mprotect(block.address, bytes, PROT_NONE);
    ended_mappings_.emplace_back(block.address, bytes);
  }
}

void Memory::end_given_back() noexcept {
  for (auto next = blocks_.begin(); next != blocks_.end();) {
    const Block& block = (next++)->second;
    if (block.given_back) {
      end(block.address);
    }
  }
}

const Block* Memory::find(const void* address) const noexcept {
  auto after = blocks_.upper_bound(number(address));
  if (after == blocks_.begin()) {
    return nullptr;
  }
  const Block& block = std::prev(after)->second;
  return number(address) < number(block.address) + block.bytes ? &block : nullptr;
}

bool Memory::was_ours(const void* address) const noexcept {
  return std::any_of(arenas_.begin(), arenas_.end(),
                     [&](const Arena& arena) { return arena.holds(address); }) ||
         std::any_of(ended_mappings_.begin(), ended_mappings_.end(), [&](const auto& ended) {
           return number(address) >= number(ended.first) &&
                  number(address) < number(ended.first) + ended.second;
         });
}

std::byte* Memory::open(int device, const void* low, std::size_t bytes) const {
  const Block* block = find(low);
  if (block == nullptr) {
    if (was_ours(low)) {
      throw std::out_of_range("an address that was given back, or never given out");
    }
    return static_cast<std::byte*>(const_cast<void*>(low));
  }
  const std::size_t offset = number(low) - number(block->address);
  if (bytes > block->bytes - offset) {
    throw std::out_of_range("bytes over the end of an allocation");
  }
  if (block->kind == MemoryKind::kDevice && block->device != device) {
    throw std::out_of_range("memory of device " + std::to_string(block->device) +
                            " used on device " + std::to_string(device));
  }
  return block->alias + offset;
}

int Memory::live(MemoryKind kind) const noexcept {
  return static_cast<int>(std::count_if(blocks_.begin(), blocks_.end(), [&](const auto& entry) {
    return entry.second.kind == kind && !entry.second.given_back;
  }));
}

}  // namespace dlbridge::guarded
