#include "dlbridge/tensor_view.hpp"

namespace dlbridge::detail {

void refuse_view(const std::string& met, const std::string& why) {
  throw ConversionRefused("cannot look at a managed tensor " + met + " (" + why + ")",
                          {"a managed tensor " + met + ": " + why});
}

void refuse_index(std::int64_t index, std::size_t dimension, std::int64_t extent) {
  throw std::out_of_range("index " + std::to_string(index) + " in dimension " +
                          std::to_string(dimension) + " of size " + std::to_string(extent));
}

void refuse_index(std::size_t count, std::size_t rank) {
  throw std::out_of_range(std::to_string(count) + " indices into " + std::to_string(rank) +
                          " dimensions");
}

void refuse_empty() {
  refuse_view("that is empty", "nothing was put in, or it was moved from");
}

void require_viewable(const ManagedTensor& tensor, DType dtype, std::size_t rank, bool writes) {
  if (!tensor) {
    refuse_empty();
  }
  if (tensor.dtype() != dtype) {
    refuse_view("of dtype " + to_string(tensor.dtype()), "the view reads " + to_string(dtype));
  }
  if (rank != kDynamicRank && static_cast<std::size_t>(tensor.ndim()) != rank) {
    refuse_view("of " + std::to_string(tensor.ndim()) + " dimensions",
                "the view has " + std::to_string(rank));
  }
  if (writes && tensor.readonly()) {
    refuse_view("that nobody may write to", "take a view of const elements");
  }
}

}  // namespace dlbridge::detail
