#include "memory/host_memory.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include "dlbridge/memory_pool.hpp"
#include "ipc/shared_block.hpp"
#include "memory/block_memory.hpp"
#include "memory/found.hpp"

#ifdef __linux__
#include <sys/mman.h>

#include <cstdio>
#include <string_view>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace dlbridge {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kHugeFrom = std::size_t{4} << 20;
// Every processor that runs a thread of the process has to hear of an offer, which takes some 40
// us: a tenth and less of what a copy of this size takes, and half of one of 4 MiB.
constexpr std::size_t kOfferedFrom = std::size_t{16} << 20;
#ifdef __SANITIZE_ADDRESS__
constexpr bool kMaps = false;  // it sees who writes past the end only of what malloc gives
#else
constexpr bool kMaps = true;
#endif
// What is smaller the C library keeps by itself, and it costs little to touch.
constexpr std::size_t kPooledFrom = std::size_t{1} << 20;
constexpr std::size_t kDefaultLimit = std::size_t{256} << 20;

/// A piece of memory that can go to the pool, and comes out of it with its record.
struct Piece {
  void* memory;
  std::size_t capacity;
};

std::size_t initial_limit() noexcept {
  return detail::bytes_in_environment("DLBRIDGE_POOL_BYTES", kDefaultLimit);
}

// Nobody may look at what is kept; AddressSanitizer reports who does.
void hide([[maybe_unused]] const Piece& piece) noexcept {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(piece.memory, piece.capacity);
#endif
}

void show([[maybe_unused]] const Piece& piece) noexcept {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(piece.memory, piece.capacity);
#endif
}

std::size_t round_up(std::size_t bytes, std::size_t step) noexcept {
  return (bytes + step - 1) / step * step;
}

#ifdef __linux__
// Memory of its own, in huge pages where the system has them: touching a page costs more than
// copying into it, and there are 512 times fewer. Memory that malloc has used stays in small ones.
void* map(std::size_t bytes) noexcept {
  const std::size_t more = bytes + kHugePage;  // to begin where a huge page does
  void* mapped = mmap(nullptr, more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return nullptr;
  }
  auto* all = static_cast<char*>(mapped);
  const std::size_t before = round_up(reinterpret_cast<std::uintptr_t>(all), kHugePage) -
                             reinterpret_cast<std::uintptr_t>(all);
  char* memory = all + before;
  if (before != 0) {
    munmap(all, before);
  }
  munmap(memory + bytes, kHugePage - before);
  (void)madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

bool has_huge_pages() noexcept {
  char modes[64];
  std::size_t size = 0;
  if (FILE* file = std::fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re")) {
    size = std::fread(modes, 1, sizeof modes, file);
    (void)std::fclose(file);
  }
  return size != 0 && std::string_view(modes, size).find("[never]") == std::string_view::npos;
}
#endif

void* new_memory(std::size_t bytes) noexcept {
#ifdef __linux__
  if (kMaps && bytes >= kHugeFrom) {
    return map(bytes);
  }
#endif
  return std::aligned_alloc(kAlignment, bytes);
}

void end_memory(void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef __linux__
  if (kMaps && bytes >= kHugeFrom) {
    munmap(memory, bytes);
    return;
  }
#endif
  std::free(memory);
}

void offer_to_system([[maybe_unused]] const Piece& piece) noexcept {
#ifdef __linux__
  if (kMaps && piece.capacity >= kOfferedFrom && detail::found<has_huge_pages>() != 0) {
    // A microsecond or two for a huge page; with small ones, half of what a new page costs. What is
    // written again is not taken.
    (void)madvise(piece.memory, piece.capacity, MADV_FREE);
  }
#endif
}

void free_piece(Piece* piece) noexcept {
  show(*piece);
  end_memory(piece->memory, piece->capacity);
  delete piece;
}

class Pool {
 public:
  static constexpr std::size_t kRoom = 16;
  using Pieces = std::array<Piece*, kRoom + 2>;

  /// The smallest piece that fits, or null.
  Piece* take(std::size_t bytes) noexcept {
    const Entered entered(*this);
    if (!entered) {
      return nullptr;
    }
    std::size_t best = kRoom;
    for (std::size_t i = 0; i < count_; ++i) {
      const std::size_t capacity = pieces_[i]->capacity;
      if (bytes <= capacity && capacity - bytes <= capacity / 5 &&
          (best == kRoom || capacity < pieces_[best]->capacity)) {
        best = i;
      }
    }
    return best == kRoom ? nullptr : remove(best);
  }

  /// Keeps the piece, if nobody else is here; what has to go for it, or itself, is in `out`, null
  /// behind the last.
  void keep(Piece* piece, Pieces& out) noexcept {
    out[0] = piece;
    const Entered entered(*this);
    if (!entered) {
      return;
    }
    out[0] = nullptr;
    std::size_t gone = 0;
    if (count_ == kRoom) {
      out[gone++] = remove(0);
    }
    pieces_[count_++] = piece;
    bytes_.fetch_add(piece->capacity, std::memory_order_relaxed);
    shrink(limit(), out, gone);
  }

  /// Takes out the oldest until no more than so many bytes are left.
  void shrink_to(std::size_t bytes, Pieces& out) noexcept {
    const Entered entered(*this);
    if (entered) {
      shrink(bytes, out, 0);
    }
  }

  [[nodiscard]] std::size_t bytes() const noexcept {
    return bytes_.load(std::memory_order_relaxed);
  }

  [[nodiscard]] std::size_t limit() noexcept {
    const std::size_t chosen = limit_.load(std::memory_order_relaxed);
    return chosen == kUnchosen ? static_cast<std::size_t>(detail::found<initial_limit>()) : chosen;
  }

  std::size_t choose_limit(std::size_t bytes) noexcept {
    const std::size_t before = limit();
    limit_.store(std::min(bytes, kUnchosen - 1), std::memory_order_relaxed);
    return before;
  }

 private:
  static constexpr std::size_t kUnchosen = SIZE_MAX;

  // In the pool, or not: somebody else is. Waiting could be forever, in a process that was forked
  // while another thread was here.
  class Entered {
   public:
    explicit Entered(Pool& pool) noexcept
        : pool_(pool), in_(!pool.busy_.exchange(true, std::memory_order_acquire)) {}
    ~Entered() {
      if (in_) {
        pool_.busy_.store(false, std::memory_order_release);
      }
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
    explicit operator bool() const noexcept { return in_; }

   private:
    Pool& pool_;
    bool in_;
  };

  Piece* remove(std::size_t index) noexcept {
    Piece* piece = pieces_[index];
    std::move(pieces_.begin() + index + 1, pieces_.begin() + count_, pieces_.begin() + index);
    --count_;
    bytes_.fetch_sub(piece->capacity, std::memory_order_relaxed);
    return piece;
  }

  void shrink(std::size_t most, Pieces& out, std::size_t gone) noexcept {
    while (bytes() > most) {
      out[gone++] = remove(0);
    }
    out[gone] = nullptr;
  }

  std::atomic<bool> busy_{false};
  std::atomic<std::size_t> bytes_{0};
  std::atomic<std::size_t> limit_{kUnchosen};
  std::size_t count_ = 0;
  std::array<Piece*, kRoom> pieces_{};  // the one that was kept longest first
};

// Never destroyed: what outlives the end of main may still give memory back.
constinit Pool pool;

void free_pieces(const Pool::Pieces& pieces) noexcept {
  for (Piece* const* each = pieces.data(); *each != nullptr; ++each) {
    free_piece(*each);
  }
}

void give_back(void* context) noexcept {
  auto* piece = static_cast<Piece*>(context);
  if (pool.limit() < piece->capacity) {
    return free_piece(piece);
  }
  offer_to_system(*piece);
  hide(*piece);
  Pool::Pieces out{};
  pool.keep(piece, out);
  free_pieces(out);
}

void* allocate(std::size_t bytes) {
  void* memory = new_memory(bytes);
  if (memory == nullptr && pool.bytes() != 0) {
    release_pool();
    memory = new_memory(bytes);
  }
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

}  // namespace

namespace detail {

std::size_t bytes_in_environment(const char* name, std::size_t otherwise) noexcept {
  const char* text = std::getenv(name);
  if (text == nullptr) {
    return otherwise;
  }
  char* end = nullptr;
  const unsigned long long bytes = std::strtoull(text, &end, 10);
  return end == text || *end != '\0' || *text == '-' ? otherwise : static_cast<std::size_t>(bytes);
}

HostMemory take_host_memory(std::size_t bytes, std::size_t alignment) {
  if (alignment > kAlignment) [[unlikely]] {
    HostMemory wider = take_host_memory(bytes + alignment);
    const std::size_t address = round_up(reinterpret_cast<std::uintptr_t>(wider.data), alignment);
    wider.data = reinterpret_cast<void*>(address);
    return wider;
  }
  if (bytes < kPooledFrom) {
    // An empty tensor gets an address too: some consumers do not take NULL.
    void* memory = allocate(std::max(round_up(bytes, kAlignment), kAlignment));
    return {memory, {memory, [](void* context) noexcept { std::free(context); }}};
  }
  if (bytes > SIZE_MAX - 2 * kHugePage) {
    throw std::bad_alloc();
  }
  if (Piece* kept = pool.take(bytes)) {
    show(*kept);
    return {kept->memory, {kept, give_back}};
  }
  const std::size_t capacity = round_up(bytes, bytes >= kHugeFrom ? kHugePage : kAlignment);
  auto* piece = new Piece{nullptr, capacity};
  try {
    piece->memory = allocate(capacity);
  } catch (...) {
    delete piece;
    throw;
  }
  return {piece->memory, {piece, give_back}};
}

}  // namespace detail

std::size_t pool_limit() noexcept {
  return pool.limit();
}

std::size_t set_pool_limit(std::size_t bytes) noexcept {
  const std::size_t before = pool.choose_limit(bytes);
  Pool::Pieces out{};
  pool.shrink_to(bytes, out);
  free_pieces(out);
  return before;
}

void release_pool() noexcept {
  Pool::Pieces out{};
  pool.shrink_to(0, out);
  free_pieces(out);
  (void)detail::release_blocks();
  detail::BlockMemory::free_spares();
}

std::size_t pooled_bytes() noexcept {
  return pool.bytes();
}

}  // namespace dlbridge
