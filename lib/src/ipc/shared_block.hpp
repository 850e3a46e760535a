#pragma once

// Blocks as this process maps them: made, received, and kept for the next.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "dlbridge/shared_memory.hpp"
#include "ipc/block_file.hpp"

namespace dlbridge::detail {

/// What others may do with a block beside reading it. Until none of them has it any more, for who
/// maps it so can go on writing.
enum class Lent : std::uint8_t { kNothing, kWrites, kItself };

/// A block, as this process maps it.
struct SharedBlock {
  std::byte* memory = nullptr;
  BlockFile file;
  OwnedDescriptor descriptor;  // locked while a received block has users
  bool made_here = false;
  bool writable = false;
  std::atomic<Lent> lent{Lent::kNothing};
  std::uint64_t forks = 0;  // of this process's line, when it was handed out
  std::size_t users = 0;

  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(file.size); }
};

/// A user of a block in this process.
class Hold {
 public:
  explicit Hold(SharedBlock& block) noexcept : block_(block) {}
  ~Hold();
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  [[nodiscard]] SharedBlock& block() const noexcept { return block_; }

 private:
  SharedBlock& block_;
};

/// A block of at least so many bytes that nobody else uses, for tensors to be shared in that mode.
/// Its memory is there: it cannot turn out to be missing when it is touched. Throws std::bad_alloc,
/// std::system_error.
[[nodiscard]] std::shared_ptr<Hold> take_block(std::size_t bytes, SharedMode mode);

/// The block that was sent. Throws ConversionRefused where its file is not the one that was said,
/// or can still be shrunk.
[[nodiscard]] std::shared_ptr<Hold> map_block(OwnedDescriptor locked, const BlockFile& said,
                                              SharedMode mode);

/// Whether the block can be sent in that mode, after what it was sent for before.
[[nodiscard]] bool can_lend(SharedBlock& block, SharedMode mode) noexcept;

/// A descriptor with a lock of its own, to be sent; it can be mapped to write only if the block is
/// not for reading. Seals the block if it is. Throws ConversionRefused where it cannot be sent so,
/// std::system_error.
[[nodiscard]] OwnedDescriptor locked_descriptor(SharedBlock& block, SharedMode mode);

/// The block that holds all of the tensor's elements, or null; also where there are none. `flags`
/// are DLPack's: elements may be padded to bytes.
[[nodiscard]] SharedBlock* block_of(const DLTensor& tensor, std::uint64_t flags = 0) noexcept;

/// Gives back the blocks that nobody uses; how many bytes.
std::size_t release_blocks() noexcept;

/// The tensor over a block's memory, which it keeps.
[[nodiscard]] ManagedTensor tensor_in_block(const std::shared_ptr<Hold>& hold,
                                            const DLTensor& tensor, std::uint64_t flags);

}  // namespace dlbridge::detail
