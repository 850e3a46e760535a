#pragma once

// Tensors for other processes: in blocks of memory that they map too. What travels is a short
// message and the kernel's descriptors of the blocks; the elements stay where they are. Linux only:
// elsewhere every function here throws std::system_error.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

/// Who may write to what is shared.
enum class SharedMode : std::uint8_t {
  kRead,   // the sender alone; the kernel holds everybody else to it
  kGive,   // the receiver alone, whose memory it is from then on
  kWrite,  // everybody
};

/// A descriptor of the kernel's, closed once.
class OwnedDescriptor {
 public:
  OwnedDescriptor() noexcept = default;
  explicit OwnedDescriptor(int number) noexcept : number_(number) {}
  OwnedDescriptor(OwnedDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  OwnedDescriptor& operator=(OwnedDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  OwnedDescriptor(const OwnedDescriptor&) = delete;
  OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
  ~OwnedDescriptor();

  [[nodiscard]] int get() const noexcept { return number_; }
  [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

/// Room for the tensors of one message, one behind the other, each aligned to 64 bytes. Blocks that
/// nobody uses any more are kept for the next arena, since their pages are there already: 1 GiB of
/// them, or DLBRIDGE_SHARED_POOL_BYTES, and as many again of received blocks, whose mappings are
/// kept. release_pool() gives all of them back. The tensors keep their block; the arena may end
/// before them.
class SharedArena {
 public:
  /// `bytes`: of all tensors, each rounded up by room_for(). What does not fit gets a block of its
  /// own. `mode`: what its tensors will be shared for.
  explicit SharedArena(SharedMode mode, std::size_t bytes = 0) noexcept
      : mode_(mode), planned_(bytes) {}

  /// What a tensor of so many bytes takes of a block.
  [[nodiscard]] static constexpr std::size_t room_for(std::size_t bytes) {
    return (bytes + 63) / 64 * 64;
  }

  /// C-contiguous, writable memory that other processes can map, with whatever is in it. Where it
  /// throws nothing was taken: MalformedTensor for sizes that overflow, std::bad_alloc where the
  /// system has not so much shared memory, std::system_error where it has no descriptor left.
  [[nodiscard]] ManagedTensor allocate(DType dtype, std::span<const std::int64_t> shape);

 private:
  SharedMode mode_;
  std::size_t planned_;
  std::size_t used_ = 0;
  std::shared_ptr<void> hold_;  // on the block that is being filled
};

/// Whether the tensor lies in memory that can be shared so as it is: in a block, of which nobody
/// has been promised anything else. Safe on any thread.
[[nodiscard]] bool can_share(const DLTensor& tensor, SharedMode mode) noexcept;

/// Whether it lies in a block at all.
[[nodiscard]] bool is_in_block(const DLTensor& tensor) noexcept;

/// The same values in pages of the caller's own, which the kernel copies one by one as they are
/// written to. For a tensor that is in a block. What its owner writes shows
/// in the pages that were not written to here. Throws std::system_error.
[[nodiscard]] ManagedTensor copy_on_write(const ManagedTensor& shared);

/// What travels. Each block of its tensors is locked by its descriptor until whoever gets it lets
/// go of the memory, in whatever way it ends: until then it is not used for anything else.
struct Message {
  std::vector<std::byte> bytes;
  std::vector<OwnedDescriptor> descriptors;  // at most 253, which is the kernel's limit
};

/// Tensors that can be shared, and a note of the sender's beside them, with descriptors that it is
/// about. Throws ConversionRefused for a tensor that cannot, and for more descriptors than a
/// message can carry; std::system_error.
[[nodiscard]] Message pack(std::span<const ManagedTensor> tensors, SharedMode mode,
                           std::span<const std::byte> note = {},
                           std::vector<OwnedDescriptor> of_note = {});

struct Received {
  SharedMode mode = SharedMode::kRead;
  std::vector<ManagedTensor> tensors;  // read-only where they are for reading
  std::vector<std::byte> note;
  std::vector<OwnedDescriptor> of_note;
};

/// The tensors of a message, in memory that this process maps now. The message is not believed:
/// whatever is wrong with it or with its descriptors is a ConversionRefused, and whoever can still
/// shrink a block could end its readers, so that is refused too. Throws std::system_error.
[[nodiscard]] Received unpack(std::span<const std::byte> bytes,
                              std::vector<OwnedDescriptor> descriptors);

/// How long to wait for a socket, until a message begins. `go_on` is asked after a signal; where it
/// says no, the call throws std::system_error(EINTR).
struct Waiting {
  std::optional<std::chrono::milliseconds> timeout{};
  bool (*go_on)() = nullptr;
};

/// Sends a message over a connected AF_UNIX stream socket; one thread at a time. Throws
/// std::system_error: ETIMEDOUT after the timeout (EAGAIN where that is 0), with nothing sent.
void send(int socket, const Message& message, const Waiting& waiting = {});

/// The next message; nothing where the sender has closed the socket. One thread at a time. Throws
/// as unpack() does, and for a sender of another user.
[[nodiscard]] std::optional<Received> receive(int socket, const Waiting& waiting = {});

/// Blocks that this process maps now, those without a user included: for tests of lifetime.
[[nodiscard]] std::size_t mapped_blocks() noexcept;

}  // namespace dlbridge
