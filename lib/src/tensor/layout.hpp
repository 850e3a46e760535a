#pragma once

#include <dlpack/dlpack.h>

#include <cstddef>

namespace dlbridge::detail {

/// Whether a dimension of more than one element runs backwards.
[[nodiscard]] bool has_negative_stride(const DLTensor& tensor) noexcept;

/// Throws MalformedTensor with the tensor_fault() of one that has any.
void require_sound(const DLTensor& tensor);

/// Bytes of new memory for a tensor of that shape and type; its data pointer is not looked at.
/// Throws MalformedTensor for sizes that no memory has.
[[nodiscard]] std::size_t bytes_to_allocate(DLTensor tensor);

}  // namespace dlbridge::detail
