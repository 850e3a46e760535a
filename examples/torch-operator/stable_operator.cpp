// The same on torch's stable ABI, for the time of a call: see docs/torch.md for why no longer.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <dlbridge/error.hpp>
#include <dlbridge/tensor_view.hpp>

namespace {

using torch::stable::Tensor;

// What the dispatcher gives an operator for the CPU: strided memory of the host, of which the bits
// are resolved. Valid during the call, whatever keeps the tensor longer.
dlbridge::ManagedTensor borrowed(const Tensor& x) {
  if (x.scalar_type() != torch::headeronly::ScalarType::Float) {
    throw dlbridge::ConversionRefused("halved takes float32", {"another dtype"}, "x.float()");
  }
  DLTensor tensor{};
  tensor.data = x.data_ptr();
  tensor.device = dlbridge::Device{}.dl();
  tensor.dtype = dlbridge::dtype_of<float>().dl();
  tensor.ndim = static_cast<std::int32_t>(x.dim());
  tensor.shape = const_cast<std::int64_t*>(x.sizes().data());
  tensor.strides = const_cast<std::int64_t*>(x.strides().data());
  return dlbridge::ManagedTensor::own(tensor, 0, {});
}

Tensor halved_out(const Tensor& x, Tensor out) {
  const auto from = borrowed(x);
  const auto to = borrowed(out);
  const dlbridge::TensorView<const float, 1> read(from);
  const dlbridge::TensorView<float, 1> written(to);
  for (std::int64_t i = 0; i < read.size(); ++i) {
    written.at(i) = read(i) / 2;
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY(manual_stable, library) {
  library.def("halved.out(Tensor x, *, Tensor(a!) out) -> Tensor(a!)");
}
STABLE_TORCH_LIBRARY_IMPL(manual_stable, CPU, library) {
  library.impl("halved.out", TORCH_BOX(&halved_out));
}
