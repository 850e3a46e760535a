// The fixture of tests that cross to the guarded device, and a producer whose memory is there.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "dlbridge/carry.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/pinned_memory.hpp"
#include "guarded/guarded_device.hpp"
#include "lib/doubles.hpp"

namespace dlbridge::guarded {

/// The one of this program: tensors and pools may keep a runtime to the end of the process.
inline GuardedDevice& the_device() {
  static auto* device = new GuardedDevice;
  return *device;
}

/// Registers the guarded device, and fails a test that leaves anything on it: memory, events,
/// pinned memory that is not in the pool, a managed tensor, or a touch of memory that was given
/// back.
class GuardedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_device_runtime(kDLExtDev, &device);
    device.settle();
    (void)device.faults();
    device.begin_count();
    before_ = device.counts();
  }
  void TearDown() override {
    device.settle();
    for (int i = 0; i < 1000 && live_managed_tensors() != 0; ++i) {  // run_elsewhere() may be at it
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    release_pinned_memory(device);
    const Counts after = device.counts();
    EXPECT_LE(after.pinned, before_.pinned + may_be_lost) << "pinned memory is left";
    EXPECT_EQ(after.allocations, before_.allocations) << "device memory is left";
    EXPECT_EQ(after.managed, before_.managed) << "managed memory is left";
    EXPECT_EQ(after.events, before_.events) << "events are left";
    EXPECT_EQ(live_managed_tensors(), 0);
    for (const std::string& fault : device.faults()) {
      ADD_FAILURE() << fault;
    }
    set_device_runtime(kDLExtDev, nullptr);
  }

  GuardedDevice& device = the_device();
  int may_be_lost = 0;  // blocks of pinned memory

 private:
  Counts before_;
};

/// Memory of a device that a producer owns: float32 0, 1, 2, ... over a shape, or any bytes.
class OnDevice {
 public:
  OnDevice(GuardedDevice& device, std::vector<std::int64_t> shape, DType dtype = {kDLFloat, 32},
           int id = 0)
      : device_(device), shape_(std::move(shape)), strides_(shape_.size()), dtype_(dtype), id_(id) {
    fill_c_strides(shape_, strides_.data());
    const auto count = std::accumulate(shape_.begin(), shape_.end(), std::int64_t{1},
                                       std::multiplies<std::int64_t>());
    bytes_ = static_cast<std::size_t>(count * dtype_.itemsize());
    memory_ = device_.make(id_, bytes_);
    if (dtype_ == DType{kDLFloat, 32} && bytes_ != 0) {
      device_.store(memory_, values().data(), bytes_);
    }
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { device_.unmake(memory_); }

  [[nodiscard]] std::vector<float> values() const {
    std::vector<float> all(bytes_ / sizeof(float));
    std::iota(all.begin(), all.end(), 0.0F);
    return all;
  }
  /// The values, as a producer's work that is still to be done on `stream`; the memory holds
  /// nothing of them before.
  void store_later(Stream stream) {
    const std::vector<unsigned char> nothing(bytes_, kFresh);
    if (bytes_ != 0) {
      device_.store(memory_, nothing.data(), bytes_);
    }
    const std::vector<float> all = values();
    std::vector<std::byte> raw(bytes_);
    if (bytes_ != 0) {
      std::memcpy(raw.data(), all.data(), bytes_);
    }
    device_.store_later(id_, memory_, std::move(raw), stream);
  }

  [[nodiscard]] DLTensor tensor() {
    DLTensor tensor{};
    tensor.data = memory_;
    tensor.device = Device(kDLExtDev, id_).dl();
    tensor.ndim = static_cast<std::int32_t>(shape_.size());
    tensor.dtype = dtype_.dl();
    tensor.shape = shape_.data();
    tensor.strides = strides_.data();
    return tensor;
  }
  [[nodiscard]] void* memory() const { return memory_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  GuardedDevice& device_;
  std::vector<std::int64_t> shape_;
  std::vector<std::int64_t> strides_;
  DType dtype_;
  int id_;
  std::size_t bytes_ = 0;
  void* memory_ = nullptr;
};

}  // namespace dlbridge::guarded
