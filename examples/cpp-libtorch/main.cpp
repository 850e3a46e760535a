// at::Tensors in a graph, and the view of a conjugate, leave torch under a policy.

#include <ATen/ATen.h>

#include <complex>
#include <cstdio>
#include <cstdlib>
#include <dlbridge/tensor_view.hpp>
#include <dlbridge/torch.hpp>

namespace {

void require(bool holds, const char* what) {
  std::printf("%s %s\n", holds ? "ok  " : "FAIL", what);
  if (!holds) {
    std::exit(EXIT_FAILURE);
  }
}

dlbridge::ManagedTensor out_of_torch(const at::Tensor& tensor,
                                     const dlbridge::Policy& policy = {}) {
  return dlbridge::to_managed<dlbridge::Torch>(tensor, dlbridge::managed_tensor_capabilities(),
                                               policy);
}

}  // namespace

int main() {
  using dlbridge::TensorView;

  // In a graph: a view that nobody may write through, since autograd would not notice.
  const at::Tensor weights = at::ones({2, 3}).requires_grad_();
  const dlbridge::ManagedTensor view = out_of_torch(weights);
  require(view.readonly() && view.data() == weights.data_ptr(), "a tensor in a graph is read-only");
  require(TensorView<const float, 2>(view)(1, 2) == 1, "and readable");
  try {
    (void)out_of_torch(weights, dlbridge::Policy::strict());
    require(false, "a strict policy refuses it");
  } catch (const dlbridge::ConversionRefused& refused) {
    std::printf("     %s\n", refused.what());
    require(refused.fix.find("x.detach()") != std::string::npos, "the refusal names the way out");
  }

  // z.conj() shares z's memory and only notes that its values are conjugated: DLPack would lose
  // that.
  const at::Tensor z = at::complex(at::tensor({1.0F, 2.0F}), at::tensor({3.0F, -4.0F}));
  const dlbridge::ManagedTensor resolved = out_of_torch(z.conj());
  const TensorView<const std::complex<float>, 1> values(resolved);
  require(values(0) == std::complex<float>(1, -3) && values(1) == std::complex<float>(2, 4),
          "a conjugate crosses with its signs, as a copy");
  require(resolved.data() != z.data_ptr(), "and does not touch its source");

  // Back into torch, over the same memory.
  at::Tensor plain = at::arange(6, at::kFloat).reshape({2, 3});
  const at::Tensor again = dlbridge::Torch::deliver(out_of_torch(plain.t()));
  plain[1][0] = 70;
  require(again.data_ptr() == plain.data_ptr() && again[0][1].item<float>() == 70,
          "a transposed view comes back sharing memory");
  return EXIT_SUCCESS;
}
