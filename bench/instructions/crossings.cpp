// The crossings of C++, counted under callgrind: ours, and for comparison torch's own.

#include <ATen/DLConvertor.h>
#include <ATen/ops/arange.h>

#include "dlbridge/convert.hpp"
#include "dlbridge/torch.hpp"

extern "C" void start();
extern "C" void stop(const char* name);

namespace {

constexpr int kCalls = 500;  // as in check.py

template <typename Crossing>
void count(const char* name, const Crossing& crossing) {
  for (int i = 0; i < 50; ++i) {
    crossing();
  }
  start();
  for (int i = 0; i < kCalls; ++i) {
    crossing();
  }
  stop(name);
}

void release(DLManagedTensorVersioned* managed) {
  managed->deleter(managed);
}

}  // namespace

int main() {
  const at::Tensor tensor = at::arange(32, at::kFloat).reshape({4, 8});
  count("C++ at::Tensor out", [&] {
    release(dlbridge::to_managed<dlbridge::Torch>(tensor, dlbridge::managed_tensor_capabilities())
                .release());
  });
  count("torch's at::Tensor out", [&] { release(at::toDLPackVersioned(tensor)); });
  // Both take what torch's exporter makes, which is counted above.
  count("C++ at::Tensor in",
        [&] { (void)dlbridge::Torch::from_dlpack(at::toDLPackVersioned(tensor)); });
  count("torch's at::Tensor in",
        [&] { (void)at::fromDLPackVersioned(at::toDLPackVersioned(tensor)); });
}
