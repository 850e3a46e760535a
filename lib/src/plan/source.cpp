#include "dlbridge/source.hpp"

namespace dlbridge {

void describe(const ManagedTensor& tensor, const Library& library, Source& source) {
  source.traits.library = &library;
  source.traits.conditions.add_if(tensor.readonly(), Condition::kReadOnly);
  const bool padded = (tensor.flags() & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0;
  source.traits.conditions.add_if(padded && tensor.dtype().element_bits() % 8 != 0,
                                  Condition::kPaddedElements);
  source.tensor = tensor.tensor();
}

}  // namespace dlbridge
