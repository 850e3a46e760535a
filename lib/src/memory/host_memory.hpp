#pragma once

#include <cstddef>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::detail {

struct HostMemory {
  void* data;
  Lease lease;  // gives it back, to the pool or to the system
};

/// Memory with whatever is in it, 64-byte aligned; never null. Throws std::bad_alloc.
[[nodiscard]] HostMemory take_host_memory(std::size_t bytes);

/// The number of bytes that a variable of the environment says, if it says one.
[[nodiscard]] std::size_t bytes_in_environment(const char* name, std::size_t otherwise) noexcept;

}  // namespace dlbridge::detail
