#pragma once

// What the kernel does for blocks: files of memory, sealed and locked. Linux only.

#include <cstddef>
#include <cstdint>

#include "dlbridge/shared_memory.hpp"

namespace dlbridge::detail {

/// Pages of a block's file.
inline constexpr std::size_t kPage = 4096;

/// Which file a block is.
struct BlockFile {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;

  friend bool operator==(const BlockFile&, const BlockFile&) = default;
};

/// Throws ConversionRefused where the descriptor is of no file.
[[nodiscard]] BlockFile file_of(const OwnedDescriptor& descriptor);

/// Memory of its own, of a size that nobody can change. All of it is there: no page can turn out to
/// be missing when it is touched. Throws std::bad_alloc, std::system_error.
[[nodiscard]] OwnedDescriptor new_file(std::size_t size);

/// Another description of the same file: its locks are its own.
[[nodiscard]] OwnedDescriptor reopened(const OwnedDescriptor& file, bool write);

enum class Mapping : std::uint8_t { kRead, kWrite, kNew, kPrivate };
[[nodiscard]] std::byte* map_file(const OwnedDescriptor& file, std::size_t size, Mapping mapping,
                                  std::size_t from = 0);
void unmap_file(void* memory, std::size_t size) noexcept;

/// Whether nobody can change its size any more.
[[nodiscard]] bool has_fixed_size(const OwnedDescriptor& file) noexcept;
/// Whether nobody can map it to write to it any more.
[[nodiscard]] bool is_sealed(const OwnedDescriptor& file) noexcept;
void seal(const OwnedDescriptor& file);

/// Locks the description, until it is unlocked, or its last descriptor and its last mapping have
/// ended, in whichever process.
void lock_shared(const OwnedDescriptor& file);
void unlock(const OwnedDescriptor& file) noexcept;
/// Whether no other description of the file is locked.
[[nodiscard]] bool is_unlocked(const OwnedDescriptor& file) noexcept;

/// Throws what every function here throws where there are no such blocks.
[[noreturn]] void not_here();

}  // namespace dlbridge::detail
