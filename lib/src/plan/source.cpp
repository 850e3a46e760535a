#include "dlbridge/source.hpp"

#include "dlbridge/shared_memory.hpp"

namespace dlbridge {

Conditions conditions_of_flags(std::uint64_t flags, DType dtype) {
  Conditions said;
  said.add_if((flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0, Condition::kReadOnly);
  const bool padded = (flags & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0;
  said.add_if(padded && dtype.element_bits() % 8 != 0, Condition::kPaddedElements);
  return said;
}

std::uint64_t flags_of_conditions(Conditions said) noexcept {
  return (said.has(Condition::kReadOnly) ? DLPACK_FLAG_BITMASK_READ_ONLY : 0) |
         (said.has(Condition::kPaddedElements) ? DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED : 0);
}

const Library& Traits::words() const noexcept {
  static constexpr Library kNameless{.name = "unnamed", .object = "tensor of an unnamed library"};
  return library == nullptr ? kNameless : *library;
}

void describe(const DLTensor& tensor, std::uint64_t flags, const Library& library, Source& source) {
  source.traits.library = &library;
  source.traits.conditions |= conditions_of_flags(flags, tensor.dtype);
  if ((flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0) {
    // Of memory that nobody ever shared, that costs one load.
    source.traits.has_shared_pages = is_in_block(tensor);
  }
  source.tensor = tensor;
}

void describe(const ManagedTensor& tensor, const Library& library, Source& source) {
  if (!tensor) {
    source.traits.library = &library;
    source.traits.conditions.add(Condition::kUninitialised);
    return;
  }
  describe(tensor.tensor(), tensor.flags(), library, source);
}

}  // namespace dlbridge
