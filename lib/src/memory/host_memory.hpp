#pragma once

#include <cstddef>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::detail {

struct HostMemory {
  void* data;
  Lease lease;  // gives it back, to the pool or to the system
};

/// Memory with whatever is in it, aligned to 64 bytes or to a greater power of two; never null.
/// Throws std::bad_alloc.
[[nodiscard]] HostMemory take_host_memory(std::size_t bytes, std::size_t alignment = 1);

/// As ManagedTensor::allocate(), for one who needs more than its alignment.
[[nodiscard]] ManagedTensor allocate_aligned(DType dtype, std::span<const std::int64_t> shape,
                                             std::int64_t alignment);

/// The number of bytes that a variable of the environment says, if it says one.
[[nodiscard]] std::size_t bytes_in_environment(const char* name, std::size_t otherwise) noexcept;

}  // namespace dlbridge::detail
