#include "ipc/shared_block.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "dlbridge/error.hpp"
#include "memory/found.hpp"
#include "memory/host_memory.hpp"

namespace dlbridge {
namespace detail {
namespace {

constexpr std::size_t kDefaultLimit = std::size_t{1} << 30;
constexpr std::size_t kMostKept = 32;  // each keeps a descriptor

std::size_t limit_in_bytes() noexcept {
  return bytes_in_environment("DLBRIDGE_SHARED_POOL_BYTES", kDefaultLimit);
}

/// What this process maps. Nothing slow is done while it is locked, for a fork waits for it.
struct Registry {
  std::mutex mutex;
  std::vector<SharedBlock*> blocks;  // all of them, by address
  std::vector<SharedBlock*> kept;    // those without a user, the one kept longest first
  std::uint64_t forks = 0;
};

// Never destroyed: what outlives the end of main may still give memory back.
union Forever {
  constexpr Forever() : registry() {}
  ~Forever() {}  // NOLINT(modernize-use-equals-default): it would be a deleted one
  Registry registry;
};
constinit Forever forever;

Registry& registry() noexcept {
  static constinit std::atomic<bool> watches_forks{false};
  if (!watches_forks.load(std::memory_order_acquire) && !watches_forks.exchange(true)) {
    pthread_atfork([] { forever.registry.mutex.lock(); },
                   [] {
                     ++forever.registry.forks;
                     forever.registry.mutex.unlock();
                   },
                   [] {
                     ++forever.registry.forks;
                     forever.registry.mutex.unlock();
                     (void)release_blocks();  // they are the parent's to use again
                   });
  }
  return forever.registry;
}

std::atomic<std::size_t> any_blocks{0};

using Lock = std::unique_lock<std::mutex>;

bool lies_before(const SharedBlock* block, const std::byte* address) noexcept {
  return block->memory < address;
}

void add(Registry& here, SharedBlock* block) {
  const auto place =
      std::lower_bound(here.blocks.begin(), here.blocks.end(), block->memory, lies_before);
  here.kept.reserve(here.blocks.size() + 1);  // so that keeping it needs no memory
  here.blocks.insert(place, block);
  any_blocks.store(here.blocks.size(), std::memory_order_release);
}

void remove(Registry& here, const SharedBlock* block) noexcept {
  std::erase(here.blocks, block);
  any_blocks.store(here.blocks.size(), std::memory_order_release);
}

void end(SharedBlock* block) noexcept {
  unmap_file(block->memory, block->size());
  delete block;
}

void end_all(const std::vector<SharedBlock*>& gone) noexcept {
  for (SharedBlock* block : gone) {
    end(block);
  }
}

// Takes out of what is kept, oldest first, until the limits hold for each kind.
std::vector<SharedBlock*> shrink(Registry& here) {
  const auto limit = static_cast<std::size_t>(found<limit_in_bytes>());
  std::vector<SharedBlock*> gone;
  for (const bool made_here : {true, false}) {
    std::size_t bytes = 0;
    std::size_t kept = 0;
    for (auto each = here.kept.rbegin(); each != here.kept.rend(); ++each) {
      if ((*each)->made_here == made_here) {
        bytes += (*each)->size();
        if (bytes > limit || ++kept > kMostKept) {
          gone.push_back(*each);
        }
      }
    }
  }
  for (const SharedBlock* block : gone) {
    std::erase(here.kept, block);
    remove(here, block);
  }
  return gone;
}

// Some sizes more than asked for, so that a block serves for more than one: an eighth at most.
std::size_t capacity_for(std::size_t bytes) {
  if (bytes > SIZE_MAX / 4) {
    throw std::bad_alloc();
  }
  const std::size_t step = std::max(kPage, std::bit_ceil(bytes + 1) / 16);
  return (std::max<std::size_t>(bytes, 1) + step - 1) / step * step;
}

SharedBlock* new_block_of(std::size_t size) {
  auto block = std::make_unique<SharedBlock>();
  block->descriptor = new_file(size);
  block->file = file_of(block->descriptor);
  block->memory = map_file(block->descriptor, size, Mapping::kNew);
  block->made_here = true;
  block->writable = true;
  return block.release();
}

// What blocks without a user take, memory and descriptors, stands in nobody's way.
template <typename Make>
auto with_room(Make&& make) {
  try {
    return make();
  } catch (const std::exception&) {
    if (release_blocks() == 0) {
      throw;
    }
  }
  return make();
}

bool fits(const SharedBlock& block, std::size_t bytes, SharedMode mode) noexcept {
  return block.made_here && block.size() >= bytes &&
         block.size() - bytes <= std::max(8 * kPage, block.size() / 4) &&
         (mode == SharedMode::kRead || !is_sealed(block.descriptor));
}

SharedBlock* take_kept(Registry& here, std::size_t bytes, SharedMode mode) {
  const Lock lock(here.mutex);
  for (auto each = here.kept.rbegin(); each != here.kept.rend(); ++each) {
    SharedBlock* block = *each;
    if (fits(*block, bytes, mode) && is_unlocked(block->descriptor)) {
      here.kept.erase(std::next(each).base());
      block->users = 1;
      block->lent = Lent::kNothing;
      block->forks = here.forks;
      return block;
    }
  }
  return nullptr;
}

std::shared_ptr<Hold> held(SharedBlock* block) {
  auto* hold = new (std::nothrow) Hold(*block);
  if (hold == nullptr) {
    const Hold ended(*block);
    throw std::bad_alloc();
  }
  return std::shared_ptr<Hold>(hold);
}

// Makes the block known, with its first user. Both are ended where there is no memory for that.
std::shared_ptr<Hold> enter(SharedBlock* block) {
  Registry& here = registry();
  try {
    const Lock locked(here.mutex);
    add(here, block);
    block->users = 1;
    block->forks = here.forks;
  } catch (...) {
    end(block);
    throw;
  }
  return held(block);
}

// A mapping that is there already of that file and kind.
SharedBlock* mapped_already(const BlockFile& file, SharedMode mode) {
  const bool write = mode != SharedMode::kRead;
  Registry& here = registry();
  const Lock lock(here.mutex);
  for (SharedBlock* block : here.blocks) {
    if (block->file == file && block->writable == write && !block->made_here) {
      if (block->users == 0) {
        lock_shared(block->descriptor);
        std::erase(here.kept, block);
        block->forks = here.forks;
        block->lent = Lent::kNothing;
      }
      ++block->users;
      if (mode == SharedMode::kWrite) {
        block->lent = Lent::kWrites;
      }
      return block;
    }
  }
  return nullptr;
}

}  // namespace

Hold::~Hold() {
  Registry& here = registry();
  std::vector<SharedBlock*> gone;
  {
    const Lock lock(here.mutex);
    if (--block_.users != 0) {
      return;
    }
    // A child that was forked meanwhile may go on using it, by the same description and its lock.
    const bool reusable = block_.forks == here.forks;
    try {
      if (reusable) {
        if (!block_.made_here) {
          unlock(block_.descriptor);
        }
        here.kept.push_back(&block_);
        gone = shrink(here);
      } else {
        gone.push_back(&block_);
        remove(here, &block_);
      }
    } catch (const std::bad_alloc&) {  // it stays mapped, for the next message of it
    }
  }
  end_all(gone);
}

std::shared_ptr<Hold> take_block(std::size_t bytes, SharedMode mode) {
  if (SharedBlock* kept = take_kept(registry(), bytes, mode)) {
    return held(kept);
  }
  const std::size_t capacity = capacity_for(bytes);
  return enter(with_room([&] { return new_block_of(capacity); }));
}

std::shared_ptr<Hold> map_block(OwnedDescriptor locked, const BlockFile& said, SharedMode mode) {
  const bool write = mode != SharedMode::kRead;
  if (file_of(locked) != said || said.size == 0) {
    throw ConversionRefused("cannot take a shared block in: it is not the one that was sent",
                            {"its descriptor is of another file, or of another size"});
  }
  if (!has_fixed_size(locked)) {
    throw ConversionRefused("cannot take a shared block in: its size is not sealed",
                            {"whoever shrinks it would end its readers"});
  }
  if (SharedBlock* known = mapped_already(said, mode)) {
    return held(known);
  }
  auto block = std::make_unique<SharedBlock>();
  block->file = said;
  block->writable = write;
  block->lent = mode == SharedMode::kWrite ? Lent::kWrites : Lent::kNothing;
  // A description of its own: others may have that of the message.
  block->descriptor = with_room([&] { return reopened(locked, write); });
  lock_shared(block->descriptor);
  block->memory = with_room([&] {
    return map_file(block->descriptor, block->size(), write ? Mapping::kWrite : Mapping::kRead);
  });
  return enter(block.release());
}

bool can_lend(SharedBlock& block, SharedMode mode) noexcept {
  if (block.lent != Lent::kNothing && block.made_here && is_unlocked(block.descriptor)) {
    block.lent = Lent::kNothing;  // they have all let go of it
  }
  switch (mode) {
    case SharedMode::kRead:
      return block.lent == Lent::kNothing;
    case SharedMode::kGive:
      return block.lent == Lent::kNothing && block.writable && !is_sealed(block.descriptor);
    case SharedMode::kWrite:
      return block.lent != Lent::kItself && block.writable && !is_sealed(block.descriptor);
  }
  return false;
}

OwnedDescriptor locked_descriptor(SharedBlock& block, SharedMode mode) {
  const bool read = mode == SharedMode::kRead;
  OwnedDescriptor locked = with_room([&] { return reopened(block.descriptor, !read); });
  const Lock one_at_a_time(registry().mutex);
  if (!can_lend(block, mode)) {
    const std::string met =
        read ? "cannot share memory for reading that others may still write to"
             : "cannot share memory for writing that was shared for reading, or given away";
    throw ConversionRefused(
        met + " (whoever has it now was promised something else); use a copy of it",
        {"whoever has it now was promised something else"}, "a copy of it");
  }
  if (read) {
    seal(block.descriptor);
  } else {
    block.lent = mode == SharedMode::kWrite ? Lent::kWrites : Lent::kItself;
  }
  lock_shared(locked);
  return locked;
}

SharedBlock* block_of(const DLTensor& tensor, std::uint64_t flags) noexcept {
  if (any_blocks.load(std::memory_order_acquire) == 0 || !Device(tensor.device).host_accessible() ||
      element_count(tensor) == 0) {
    return nullptr;
  }
  const auto extent = extent_of(tensor, flags);
  if (!extent) {
    return nullptr;
  }
  const auto [first, end] = *extent;
  Registry& here = registry();
  const Lock lock(here.mutex);
  const auto* address = reinterpret_cast<const std::byte*>(first);
  auto after = std::upper_bound(
      here.blocks.begin(), here.blocks.end(), address,
      [](const std::byte* at, const SharedBlock* block) { return at < block->memory; });
  if (after == here.blocks.begin()) {
    return nullptr;
  }
  SharedBlock* block = *--after;
  const auto base = reinterpret_cast<std::uintptr_t>(block->memory);
  return block->users != 0 && end >= first && end - base <= block->size() ? block : nullptr;
}

std::size_t release_blocks() noexcept {
  if (any_blocks.load(std::memory_order_acquire) == 0) {
    return 0;
  }
  Registry& here = registry();
  std::vector<SharedBlock*> gone;
  {
    const Lock lock(here.mutex);
    for (SharedBlock* block : here.kept) {
      remove(here, block);
    }
    std::swap(gone, here.kept);
  }
  std::size_t bytes = 0;
  for (const SharedBlock* block : gone) {
    bytes += block->size();
  }
  end_all(gone);
  return bytes;
}

ManagedTensor tensor_in_block(const std::shared_ptr<Hold>& hold, const DLTensor& tensor,
                              std::uint64_t flags) {
  return ManagedTensor::own(tensor, flags, Lease::calling([hold]() noexcept {}));
}

}  // namespace detail

std::size_t mapped_blocks() noexcept {
  return detail::any_blocks.load(std::memory_order_acquire);
}

}  // namespace dlbridge
