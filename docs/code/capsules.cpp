// Managed tensors without any library: in, out, twice, and what is refused on the way.

#include <array>
#include <dlbridge/error.hpp>
#include <dlbridge/managed_tensor.hpp>
#include <dlbridge/tensor_view.hpp>
#include <iostream>
#include <thread>

int main() {
  const std::array<std::int64_t, 2> shape{2, 3};
  auto tensor = dlbridge::ManagedTensor::allocate(*dlbridge::dtype_named("float32"), shape);
  const dlbridge::TensorView<float, 2> view(tensor);
  for (std::int64_t i = 0; i < view.extent(0); ++i) {
    for (std::int64_t j = 0; j < view.extent(1); ++j) {
      view(i, j) = static_cast<float>(10 * i + j);
    }
  }

  // A struct for somebody else, who calls its deleter once, on any thread.
  DLManagedTensorVersioned* leaving = tensor.share().release();
  std::thread([leaving] { leaving->deleter(leaving); }).join();

  // And one from somebody else: from here on its deleter runs exactly once.
  const auto adopted = dlbridge::ManagedTensor::adopt(tensor.share().release());
  std::cout << dlbridge::TensorView<const float, 2>(adopted).at(1, 2) << '\n';

  try {
    (void)dlbridge::TensorView<double, 2>(adopted);
  } catch (const dlbridge::ConversionRefused& refused) {
    std::cout << refused.what() << '\n';
  }
  DLTensor wrong = adopted.tensor();
  wrong.ndim = -1;
  try {
    (void)dlbridge::ManagedTensor::own(wrong, 0, {});
  } catch (const dlbridge::MalformedTensor& malformed) {
    std::cout << malformed.what() << '\n';
  }
}
