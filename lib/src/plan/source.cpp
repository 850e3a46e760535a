#include "dlbridge/source.hpp"

#include "dlbridge/shared_memory.hpp"

namespace dlbridge {

void describe(const ManagedTensor& tensor, const Library& library, Source& source) {
  source.traits.library = &library;
  if (tensor.readonly()) {
    source.traits.conditions.add(Condition::kReadOnly);
    // Of memory that nobody ever shared, that costs one load.
    source.traits.has_shared_pages = is_in_block(tensor.tensor());
  }
  const bool padded = (tensor.flags() & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0;
  source.traits.conditions.add_if(padded && tensor.dtype().element_bits() % 8 != 0,
                                  Condition::kPaddedElements);
  source.tensor = tensor.tensor();
}

}  // namespace dlbridge
