#include <ATen/ATen.h>

#include <dlbridge/tensor_view.hpp>
#include <dlbridge/torch.hpp>
#include <iostream>

int main() {
  const at::Tensor x = at::arange(6, at::kFloat).reshape({2, 3}).requires_grad_();
  const auto& target = dlbridge::managed_tensor_capabilities();
  const auto tensor = dlbridge::to_managed<dlbridge::Torch>(x, target);
  const dlbridge::TensorView<const float, 2> view(tensor);
  std::cout << to_string(tensor.dtype()) << (tensor.readonly() ? ", read-only" : ", writable")
            << ", x[1, 2] = " << view(1, 2) << '\n';
  try {
    (void)dlbridge::to_managed<dlbridge::Torch>(x, target, dlbridge::Policy::strict());
  } catch (const dlbridge::ConversionRefused& refused) {
    std::cout << refused.what() << '\n';
  }
}
