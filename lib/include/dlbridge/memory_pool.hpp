#pragma once

#include <cstddef>

namespace dlbridge {

/// Memory of copies that ended is kept for the next copies, since touching new memory for the first
/// time takes longer than copying into it. Only pieces of a megabyte or more are kept, at most 16,
/// and at most pool_limit() bytes of them: whatever was kept longest goes first. A piece serves a
/// copy that fills at least four fifths of it. On Linux the large ones (4 MiB and more) are mapped
/// in huge pages; where there are such, the system may take those of 16 MiB and more back whenever
/// it is short of memory, without asking (MADV_FREE).
///
/// All functions may be called on any thread. No thread ever waits for another here: who finds the
/// pool in use asks the system instead.

/// Bytes that may be kept; at first 256 MiB, or DLBRIDGE_POOL_BYTES (0: nothing is kept).
[[nodiscard]] std::size_t pool_limit() noexcept;

/// Sets them, and gives back at once what is kept beyond. Returns the limit until now.
std::size_t set_pool_limit(std::size_t bytes) noexcept;

/// Gives back everything that is kept, blocks of shared memory too, and the memory of small blocks
/// that the calling thread keeps (at most 16 times 256 bytes).
void release_pool() noexcept;

/// Bytes that are kept now.
[[nodiscard]] std::size_t pooled_bytes() noexcept;

}  // namespace dlbridge
