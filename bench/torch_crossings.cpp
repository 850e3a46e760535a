// The torch bridge in C++ against torch's own door for DLPack. bench/run.py pairs the lines: "ours"
// with "torch's".

#include <ATen/DLConvertor.h>
#include <ATen/ops/arange.h>
#include <benchmark/benchmark.h>

#include "dlbridge/convert.hpp"
#include "dlbridge/torch.hpp"

namespace {

at::Tensor example() {
  return at::arange(32, at::kFloat).reshape({4, 8});
}

void out_ours(benchmark::State& state) {
  const at::Tensor tensor = example();
  const auto& target = dlbridge::managed_tensor_capabilities();
  for ([[maybe_unused]] auto _ : state) {
    DLManagedTensorVersioned* managed =
        dlbridge::to_managed<dlbridge::Torch>(tensor, target).release();
    benchmark::DoNotOptimize(managed);
    managed->deleter(managed);
  }
}
BENCHMARK(out_ours)->Name("tensor to managed tensor/ours");
// Each thread has a tensor of its own.
BENCHMARK(out_ours)->Name("tensors to managed tensors at once")->Threads(1)->Threads(2);

void out_torch(benchmark::State& state) {
  const at::Tensor tensor = example();
  for ([[maybe_unused]] auto _ : state) {
    DLManagedTensorVersioned* managed = at::toDLPackVersioned(tensor);
    benchmark::DoNotOptimize(managed);
    managed->deleter(managed);
  }
}
BENCHMARK(out_torch)->Name("tensor to managed tensor/torch's");

// Both take what torch's own exporter makes, whose cost (the line above) is to be taken off.
void in_ours(benchmark::State& state) {
  const at::Tensor tensor = example();
  for ([[maybe_unused]] auto _ : state) {
    at::Tensor delivered = dlbridge::Torch::from_dlpack(at::toDLPackVersioned(tensor));
    benchmark::DoNotOptimize(delivered);
  }
}
BENCHMARK(in_ours)->Name("managed tensor to tensor/ours");
BENCHMARK(in_ours)->Name("managed tensors to tensors at once")->Threads(1)->Threads(2);

void in_torch(benchmark::State& state) {
  const at::Tensor tensor = example();
  for ([[maybe_unused]] auto _ : state) {
    at::Tensor delivered = at::fromDLPackVersioned(at::toDLPackVersioned(tensor));
    benchmark::DoNotOptimize(delivered);
  }
}
BENCHMARK(in_torch)->Name("managed tensor to tensor/torch's");

}  // namespace
