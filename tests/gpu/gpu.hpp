#pragma once

// For tests on a CUDA device. Streams are held up by a call of the host's that waits for a gate, so
// that "before" and "after" are no matter of luck.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <vector>

#include "dlbridge/cuda.hpp"

namespace dlbridge::gpu {

inline void ok(cudaError_t error) {
  ASSERT_EQ(error, cudaSuccess) << cudaGetErrorName(error) << ": " << cudaGetErrorString(error);
}

inline cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream.handle);
}

/// A stream that waits for no other; destroyed at the end.
class TestStream {
 public:
  explicit TestStream(unsigned flags = cudaStreamNonBlocking) {
    ok(cudaStreamCreateWithFlags(&stream_, flags));
  }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  ~TestStream() {
    ok(cudaStreamSynchronize(stream_));
    ok(cudaStreamDestroy(stream_));
  }

  [[nodiscard]] cudaStream_t get() const { return stream_; }
  operator Stream() const { return Stream{stream_}; }  // NOLINT(google-explicit-constructor)

 private:
  cudaStream_t stream_ = nullptr;
};

/// Holds up the work of a stream from now until it is opened. Opens by itself after a while, so
/// that a test that waits wrongly fails and does not hang.
class Gate {
 public:
  explicit Gate(cudaStream_t stream) {
    ok(cudaLaunchHostFunc(
        stream, [](void* gate) { static_cast<Gate*>(gate)->wait_until_open(); }, this));
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() {
    open();
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [this] { return passed_; });
  }

  /// Whether the stream is beyond it.
  [[nodiscard]] bool passed() {
    const std::scoped_lock lock(mutex_);
    return passed_;
  }

  void open() {
    const std::scoped_lock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  void wait_until_open() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(5), [this] { return open_; });
    passed_ = true;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  bool passed_ = false;
};

/// Skipped, with the runtime's reason, where there is no device. Checks after every test that the
/// context is still usable and that the current device is the first.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (runtime.device_count() == 0) {
      GTEST_SKIP() << runtime.unavailable();
    }
    ok(cudaSetDevice(0));
  }

  void TearDown() override {
    if (runtime.device_count() == 0) {
      return;
    }
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    int device = -1;
    ok(cudaGetDevice(&device));
    EXPECT_EQ(device, 0);
    ok(cudaDeviceSynchronize());
  }

  /// Memory of the device with those bytes in it; freed at the end by its owner.
  void* on_device(const std::vector<std::byte>& bytes, Stream stream, int device = 0) {
    void* memory = runtime.allocate(device, bytes.size(), stream);
    runtime.copy(device, memory, bytes.data(), bytes.size(), stream);
    runtime.synchronise(device, stream);
    return memory;
  }

  std::vector<std::byte> on_host(const void* memory, std::size_t bytes, Stream stream,
                                 int device = 0) {
    std::vector<std::byte> result(bytes);
    runtime.copy(device, result.data(), memory, bytes, stream);
    runtime.synchronise(device, stream);
    return result;
  }

  DeviceRuntime& runtime = cuda_runtime();
};

}  // namespace dlbridge::gpu
