#include "doors/float4.hpp"

#include <algorithm>

namespace dlbridge::python {
namespace {

constexpr DType kSingle{kDLFloat4_e2m1fn, 4, 1};
constexpr DType kPair{kDLFloat4_e2m1fn, 4, 2};

}  // namespace

bool respell_float4(Source& source, const Capabilities& target) {
  DLTensor& tensor = source.tensor;
  const DType dtype(tensor.dtype);
  if (dtype.code != kDLFloat4_e2m1fn || dtype.bits != 4 || target.dtypes.contains(dtype) ||
      tensor.ndim < 1 || tensor.shape == nullptr || !is_c_contiguous(tensor)) {
    return false;
  }
  const DType other = dtype == kSingle ? kPair : kSingle;
  const std::int64_t last = tensor.shape[tensor.ndim - 1];
  if (!target.dtypes.contains(other) || (other == kPair && last % 2 != 0)) {
    return false;
  }
  std::int64_t* strides = source.room.data();
  std::int64_t* shape = strides + kMaxDimensions;
  std::copy_n(tensor.shape, tensor.ndim, shape);
  shape[tensor.ndim - 1] = other == kPair ? last / 2 : last * 2;
  fill_c_strides({shape, static_cast<std::size_t>(tensor.ndim)}, strides);
  tensor.shape = shape;
  tensor.strides = strides;
  tensor.dtype = other.dl();
  return true;
}

}  // namespace dlbridge::python
