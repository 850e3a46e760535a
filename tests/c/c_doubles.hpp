// What the tests of the C interface share: memory of a C program whose callbacks are counted, a
// foreign tensor whose deleter is, and owners of what the interface gives.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "dlbridge/dlbridge.h"

namespace dlbridge::c_doubles {

/// What a call says when it fails.
class Failure {
 public:
  Failure() = default;
  Failure(const Failure&) = delete;
  Failure& operator=(const Failure&) = delete;
  ~Failure() { dlbridge_error_free(error_); }
  [[nodiscard]] dlbridge_error** place() {
    dlbridge_error_free(std::exchange(error_, nullptr));
    return &error_;
  }
  [[nodiscard]] const dlbridge_error* get() const { return error_; }
  [[nodiscard]] std::string message() const { return text(dlbridge_error_message(error_)); }
  [[nodiscard]] std::string fix() const { return text(dlbridge_error_fix(error_)); }
  [[nodiscard]] static std::string text(const char* said) { return said == nullptr ? "" : said; }

 private:
  dlbridge_error* error_ = nullptr;
};

/// Runs the deleter in the end.
class Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() { end(); }
  void end() {
    if (DLManagedTensorVersioned* ended = release(); ended != nullptr) {
      ended->deleter(ended);
    }
  }
  [[nodiscard]] DLManagedTensorVersioned** place() { return &tensor_; }
  [[nodiscard]] DLManagedTensorVersioned* get() const { return tensor_; }
  [[nodiscard]] DLManagedTensorVersioned* release() { return std::exchange(tensor_, nullptr); }
  [[nodiscard]] const DLTensor& dl() const { return tensor_->dl_tensor; }
  template <typename T = float>
  [[nodiscard]] T* values() const {
    return static_cast<T*>(tensor_->dl_tensor.data);
  }

 private:
  DLManagedTensorVersioned* tensor_ = nullptr;
};

/// float32 memory of a C program, and what became of it.
struct Memory {
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::array<float, 6> values{0, 1, 2, 3, 4, 5};
  std::array<std::int64_t, 2> shape{2, 3};
  std::array<std::int64_t, 2> strides{3, 1};
  std::atomic<int> acquired{0};
  std::atomic<int> released{0};
  DLTensor tensor{.data = values.data(),
                  .device = {kDLCPU, 0},
                  .ndim = 2,
                  .dtype = {kDLFloat, 32, 1},
                  .shape = shape.data(),
                  .strides = strides.data(),
                  .byte_offset = 0};

  static void release(void* self) { ++static_cast<Memory*>(self)->released; }

  static dlbridge_status acquire(void* self, void** /*data*/, dlbridge_lease* lease,
                                 dlbridge_error** /*error*/) {
    ++static_cast<Memory*>(self)->acquired;
    *lease = {self, release};
    return DLBRIDGE_OK;
  }

  [[nodiscard]] dlbridge_lease lease() { return {this, release}; }

  [[nodiscard]] dlbridge_source source() {
    dlbridge_source source{};
    source.struct_size = sizeof source;
    source.tensor = &tensor;
    source.context = this;
    source.acquire = acquire;
    return source;
  }

  /// Lies transposed: not in C order.
  void transpose() {
    std::swap(shape[0], shape[1]);
    std::swap(strides[0], strides[1]);
  }
};

/// A tensor of another library over such memory.
struct Foreign : Memory {
  Foreign() {
    managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensorVersioned* self) { release(self->manager_ctx); };
    managed.flags = 0;
    managed.dl_tensor = tensor;
    legacy.manager_ctx = this;
    legacy.deleter = [](DLManagedTensor* self) { release(self->manager_ctx); };
    legacy.dl_tensor = tensor;
  }
  DLManagedTensorVersioned managed{};
  DLManagedTensor legacy{};
};

template <typename Struct>
[[nodiscard]] Struct empty() {
  Struct made{};
  made.struct_size = sizeof made;
  return made;
}

[[nodiscard]] inline dlbridge_policy preset(const char* name) {
  auto policy = empty<dlbridge_policy>();
  policy.preset = name;
  return policy;
}

/// A target that reads C-contiguous memory of the host only.
[[nodiscard]] inline dlbridge_capabilities compact() {
  auto target = empty<dlbridge_capabilities>();
  target.name = "grid";
  target.strides = "compact";
  return target;
}

}  // namespace dlbridge::c_doubles
