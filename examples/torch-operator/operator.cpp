// An operator of torch's with an `out=` form, whose code sees views of any strides. What dlbridge
// refuses in it reaches Python as dlbridge.ConversionRefused.

#include <torch/library.h>

#include <dlbridge/pybind11.hpp>  // torch brings pybind11 along
#include <dlbridge/tensor_view.hpp>
#include <dlbridge/torch.hpp>

namespace {

at::Tensor& halved_out(const at::Tensor& x, at::Tensor& out) {
  const auto& target = dlbridge::managed_tensor_capabilities();
  const auto from = dlbridge::to_managed<dlbridge::Torch>(x, target);
  // The caller's own memory or a refusal: what is written to a copy would be lost.
  const auto to = dlbridge::to_managed<dlbridge::Torch>(out, target, dlbridge::Policy::zero_copy(),
                                                        {.writable = true});
  const dlbridge::TensorView<const float, 1> read(from);
  const dlbridge::TensorView<float, 1> written(to);
  for (std::int64_t i = 0; i < read.size(); ++i) {
    written.at(i) = read(i) / 2;
  }
  return out;
}

}  // namespace

TORCH_LIBRARY(manual, library) {
  library.def("halved.out(Tensor x, *, Tensor(a!) out) -> Tensor(a!)");
}
TORCH_LIBRARY_IMPL(manual, CPU, library) {
  library.impl("halved.out", dlbridge::raising_in_python<&halved_out>);
}
