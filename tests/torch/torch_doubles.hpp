// Tensors whose memory is counted, and the crossings that the tests of the torch bridge make.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dlbridge/convert.hpp"
#include "dlbridge/torch.hpp"
#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge::doubles {

// Memory from elsewhere under a tensor: freed and counted by the deleter that torch was given.
class CountedMemory {
 public:
  explicit CountedMemory(std::vector<std::int64_t> shape = {2, 3}) : shape_(std::move(shape)) {
    std::int64_t count = 1;
    for (const auto size : shape_) {
      count *= size;
    }
    count_ = static_cast<std::size_t>(count);
  }
  CountedMemory(const CountedMemory&) = delete;
  CountedMemory& operator=(const CountedMemory&) = delete;
  ~CountedMemory() { EXPECT_EQ(freed(), made_) << "memory is left, or was freed twice"; }

  /// float32: 0, 1, 2, ...
  [[nodiscard]] at::Tensor tensor() {
    ++made_;
    auto* memory = new float[count_];
    for (std::size_t i = 0; i < count_; ++i) {
      memory[i] = static_cast<float>(i);
    }
    return at::from_blob(
        memory, shape_,
        [this](void* given) {
          auto* floats = static_cast<float*>(given);
          std::fill_n(floats, count_, -1.0F);
          delete[] floats;
          ++freed_;
        },
        at::kFloat);
  }
  [[nodiscard]] int freed() const { return freed_.load(); }

 private:
  std::vector<std::int64_t> shape_;
  std::size_t count_ = 0;
  int made_ = 0;
  std::atomic<int> freed_{0};
};

/// A view of the tensor's memory as a program on the host would hold it.
[[nodiscard]] inline ManagedTensor view_of(const at::Tensor& tensor,
                                           const Policy& policy = Policy::strict()) {
  return to_managed<Torch>(tensor, cases::kHostOnly, policy);
}

/// The elements of a float32 tensor in C order, read through its strides.
[[nodiscard]] inline std::vector<float> values_of(const ManagedTensor& tensor) {
  std::vector<float> values;
  const auto count = static_cast<std::size_t>(element_count(tensor.tensor()));
  std::vector<std::int64_t> index(static_cast<std::size_t>(tensor.ndim()), 0);
  while (values.size() < count) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < index.size(); ++i) {
      offset += index[i] * tensor.strides()[i];
    }
    values.push_back(static_cast<const float*>(tensor.data())[offset]);
    for (std::size_t i = index.size(); i-- > 0;) {
      if (++index[i] < tensor.shape()[i]) {
        break;
      }
      index[i] = 0;
    }
  }
  return values;
}

[[nodiscard]] inline c10::StorageImpl& storage_of(const at::Tensor& tensor) {
  return *tensor.storage().unsafeGetStorageImpl();
}

}  // namespace dlbridge::doubles
