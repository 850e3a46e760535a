#include "dlbridge/tensor_view.hpp"

#include "plan/near_types.hpp"

namespace dlbridge::detail {

void refuse_view(const std::string& met, const std::string& why, const std::string& fix) {
  throw ConversionRefused("cannot look at a managed tensor " + met + " (" + why + ")" +
                              (fix.empty() ? "" : "; use " + fix),
                          {"a managed tensor " + met + ": " + why}, fix);
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

// Elements below a byte have no addresses, and no type in C++.
void refuse_visit(DType dtype) {
  refuse_view(
      "of dtype " + to_string(dtype), "C++ has no such type to visit it as",
      dtype.whole_bytes() ? "a TensorView of a type of one's own with that ElementType" : "");
}

void require_viewable(const ManagedTensor& tensor, DType dtype, std::size_t rank, bool writes) {
  if (!tensor) {
    refuse_empty();
  }
  if (tensor.dtype() != dtype) {
    const std::string wanted = to_string(dtype);
    const std::string met = to_string(tensor.dtype());
    const std::string cast =
        ", or to_managed<DLPack>(x, managed_tensor_capabilities(), {}, Request{.dtype = "
        "dtype_named(\"" +
        wanted + "\")}) to cast";
    refuse_view("of dtype " + met, "the view reads " + wanted,
                tensor.dtype().whole_bytes()
                    ? "a view of " + met + (holds(dtype, tensor.dtype()) ? cast : "")
                    : "");
  }
  if (rank != kDynamicRank && static_cast<std::size_t>(tensor.ndim()) != rank) {
    refuse_view("of " + std::to_string(tensor.ndim()) + " dimensions",
                "the view has " + std::to_string(rank), "a view of kDynamicRank");
  }
  if (writes && tensor.readonly()) {
    refuse_view("that nobody may write to", "the view writes",
                std::string("a view of const elements, or ") + kCallForACopy);
  }
}

}  // namespace dlbridge::detail
