// Device memory that the processor must not touch, and the pinned and managed memory beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace dlbridge::guarded {

/// What a byte of memory holds that nobody wrote yet, and what it holds after it was given back.
inline constexpr unsigned char kFresh = 0xCD;
inline constexpr unsigned char kPoison = 0xDD;

enum class MemoryKind : std::uint8_t { kDevice, kPinned, kManaged };

/// One allocation.
struct Block {
  MemoryKind kind = MemoryKind::kDevice;
  int device = 0;  // of kDevice only
  std::size_t bytes = 0;
  std::byte* address = nullptr;  // what the world sees; of kDevice it faults on any touch
  std::byte* alias = nullptr;    // the same bytes, open: for the device's own work
  bool given_back = false;       // nobody may begin anything with it any more
};

/// The memory of some devices. Each device's lies in a file without a name that is mapped twice:
/// closed, at the addresses that are given out, and open for the device itself. So the processor
/// faults also while a copy is running on another thread.
///
/// Not thread-safe: the device's lock guards it.
class Memory {
 public:
  explicit Memory(int devices);
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  /// Null for no bytes, as CUDA's. Filled with kFresh. Throws std::bad_alloc.
  [[nodiscard]] void* allocate(MemoryKind kind, int device, std::size_t bytes);
  /// From now on beginning anything with it is a fault. Null where no such memory is alive.
  Block* give_back(void* address) noexcept;
  /// Ends it: poisoned, and nothing reads or writes it without a fault.
  void end(void* address) noexcept;
  /// Ends all that was given back: also what a capture recorded, which is never done.
  void end_given_back() noexcept;

  /// The allocation that holds the address, alive or given back but not ended; null for any other.
  [[nodiscard]] const Block* find(const void* address) const noexcept;

  /// Where the bytes [low, low + bytes) can be read and written by work of `device`; host memory
  /// that nobody here knows is itself. Throws std::out_of_range, naming what is wrong, for bytes
  /// of another device, over the end of an allocation, or of one that has ended.
  [[nodiscard]] std::byte* open(int device, const void* low, std::size_t bytes) const;

  /// Allocations of the kind that nobody has given back.
  [[nodiscard]] int live(MemoryKind kind) const noexcept;

 private:
  // The addresses of one device.
  struct Arena {
    std::byte* closed = nullptr;
    std::byte* open = nullptr;
    std::size_t used = 0;
    int file = -1;
    [[nodiscard]] bool holds(const void* address) const noexcept;
  };

  void* take(Arena& arena, int device, std::size_t bytes);
  void* map(MemoryKind kind, std::size_t bytes);
  [[nodiscard]] bool was_ours(const void* address) const noexcept;

  std::vector<Arena> arenas_;
  std::map<std::uintptr_t, Block> blocks_;                          // by address, not yet ended
  std::vector<std::pair<std::byte*, std::size_t>> ended_mappings_;  // closed to the end
};

}  // namespace dlbridge::guarded
