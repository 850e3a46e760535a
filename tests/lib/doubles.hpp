// What the tests of every room share: a producer double whose deleter is counted, and a listener
// that finds managed tensors left behind by a test.
#pragma once

#include <dlpack/dlpack.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge::doubles {

// Fails every test after which a managed tensor of ours is still alive.
class NoTensorIsLeft : public ::testing::EmptyTestEventListener {
 public:
  void OnTestEnd(const ::testing::TestInfo& /*info*/) override {
    EXPECT_EQ(live_managed_tensors(), 0) << "managed tensors outlive the test";
  }
};

// Once in every program that includes this header; the listeners own it.
inline const bool kListening = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new NoTensorIsLeft);
  return true;
}();

// A producer elsewhere: float32 memory on the host, the struct that it hands over, and what became
// of it. Managed is DLManagedTensorVersioned or DLManagedTensor. Tests damage `managed` and the
// dimensions as they like; the double stays the owner of everything and must outlive its tensor.
template <typename Managed>
class Elsewhere {
 public:
  static constexpr bool kVersioned = std::same_as<Managed, DLManagedTensorVersioned>;

  explicit Elsewhere(std::vector<std::int64_t> shape_ = {2, 3})
      : shape(std::move(shape_)), strides(shape.size()) {
    fill_c_strides(shape, strides.data());
    for (std::size_t i = 0; i < memory.size(); ++i) {
      memory[i] = static_cast<float>(i);
    }
    if constexpr (kVersioned) {
      managed.version = kVersion;
    }
    managed.manager_ctx = this;
    managed.deleter = [](Managed* self) { static_cast<Elsewhere*>(self->manager_ctx)->end(); };
    managed.dl_tensor.data = memory.data();
    managed.dl_tensor.device = Device{}.dl();
    managed.dl_tensor.ndim = static_cast<std::int32_t>(shape.size());
    managed.dl_tensor.dtype = DType{kDLFloat, 32}.dl();
    managed.dl_tensor.shape = shape.data();
    managed.dl_tensor.strides = strides.data();
  }
  Elsewhere(const Elsewhere&) = delete;
  Elsewhere& operator=(const Elsewhere&) = delete;
  ~Elsewhere() { EXPECT_LE(deleted(), 1) << "a deleter was called again"; }

  [[nodiscard]] DLTensor& tensor() { return managed.dl_tensor; }
  [[nodiscard]] int deleted() const { return deleted_.load(); }
  [[nodiscard]] std::thread::id deleted_on() const { return deleted_on_; }

  /// A lease on the memory, counted like the deleter.
  [[nodiscard]] Lease lease() {
    return {this, [](void* self) noexcept { static_cast<Elsewhere*>(self)->end(); }};
  }

  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  alignas(64) std::array<float, 64> memory{};
  Managed managed{};

 private:
  void end() {
    deleted_on_ = std::this_thread::get_id();
    ++deleted_;
    // Whoever still looks at these afterwards sees nonsense.
    shape.assign(shape.size(), -77);
    strides.assign(strides.size(), -77);
  }

  std::atomic<int> deleted_{0};
  std::thread::id deleted_on_;
};

using Versioned = Elsewhere<DLManagedTensorVersioned>;
using Legacy = Elsewhere<DLManagedTensor>;

}  // namespace dlbridge::doubles
