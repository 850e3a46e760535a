// Every function of the CUDA runtime, on a device.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <set>
#include <string>
#include <thread>

#include "gpu.hpp"

namespace dlbridge::gpu {
namespace {

using Bytes = std::vector<std::byte>;

Bytes numbered(std::size_t count) {
  Bytes bytes(count);
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  }
  return bytes;
}

// Needs no device: what it says where there is none.
TEST(cuda_runtime, says_why_there_is_no_device_and_touches_none) {
  DeviceRuntime& runtime = cuda_runtime();
  EXPECT_EQ(runtime.name(), "CUDA");
  EXPECT_EQ(runtime.unavailable().empty(), runtime.device_count() > 0);
  if (runtime.device_count() > 0) {
    GTEST_SKIP() << "there is a device";
  }
  const int here = 0;
  EXPECT_FALSE(runtime.locate(&here).has_value());
  EXPECT_THROW(static_cast<void>(runtime.allocate(0, 16, {})), DeviceError);
  EXPECT_THROW(static_cast<void>(runtime.allocate_host(16)), DeviceError);
  EXPECT_THROW(static_cast<void>(runtime.own_stream(0)), DeviceError);
  EXPECT_THROW(static_cast<void>(runtime.is_capturing(0, {})), DeviceError);
  EXPECT_THROW(static_cast<void>(runtime.record(0, {})), DeviceError);
  EXPECT_THROW(runtime.synchronise(0, Stream{}), DeviceError);
  EXPECT_THROW(runtime.copy(0, nullptr, nullptr, 1, {}), DeviceError);
  EXPECT_THROW(runtime.copy_elements(0, {}, {}), DeviceError);
  runtime.free(0, nullptr, {});
  runtime.free_host(nullptr);
  runtime.release({});
}

TEST(cuda_runtime, registers_for_device_and_host_memory) {
  register_cuda_runtime();
  for (const std::int32_t type : {kDLCUDA, kDLCUDAHost, kDLCUDAManaged}) {
    EXPECT_TRUE(cuda_runtime().types().contains(type));
    EXPECT_EQ(device_runtime(type), &cuda_runtime());
  }
  EXPECT_EQ(device_runtime(kDLROCM), nullptr);
}

TEST_F(GpuTest, refuses_a_device_that_is_not_there) {
  for (const int device : {-1, runtime.device_count(), 1000}) {
    EXPECT_THROW(static_cast<void>(runtime.allocate(device, 16, {})), DeviceError);
    EXPECT_THROW(static_cast<void>(runtime.own_stream(device)), DeviceError);
    EXPECT_THROW(runtime.synchronise(device, Stream{}), DeviceError);
  }
  try {
    static_cast<void>(runtime.own_stream(1000));
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("no CUDA device 1000"), std::string::npos);
  }
}

// --- where memory is ----------------------------------------------------------------------------

TEST_F(GpuTest, locates_each_kind_of_memory_and_knows_no_other) {
  const TestStream stream;
  void* device = runtime.allocate(0, 1000, stream);
  void* plain_device = nullptr;
  ok(cudaMalloc(&plain_device, 1000));
  void* pinned = runtime.allocate_host(1000);
  void* managed = nullptr;
  ok(cudaMallocManaged(&managed, 1000));
  Bytes registered(1 << 16);
  ok(cudaHostRegister(registered.data(), registered.size(), cudaHostRegisterDefault));

  EXPECT_EQ(runtime.locate(device), (Device{kDLCUDA, 0}));
  EXPECT_EQ(runtime.locate(static_cast<std::byte*>(device) + 999), (Device{kDLCUDA, 0}));
  EXPECT_EQ(runtime.locate(plain_device), (Device{kDLCUDA, 0}));
  EXPECT_EQ(runtime.locate(pinned), (Device{kDLCUDAHost, 0}));
  EXPECT_EQ(runtime.locate(registered.data() + 5), (Device{kDLCUDAHost, 0}));
  EXPECT_EQ(runtime.locate(managed), (Device{kDLCUDAManaged, 0}));
  const Bytes ordinary(1000);
  EXPECT_EQ(runtime.locate(ordinary.data()), std::nullopt);
  EXPECT_EQ(runtime.locate(nullptr), std::nullopt);
  for (const std::uintptr_t garbage :
       {std::uintptr_t{8}, std::uintptr_t{0xdeadbeef}, std::uintptr_t{0x7fff00000000},
        std::uintptr_t{0xffffffffffffff00}}) {
    EXPECT_EQ(runtime.locate(reinterpret_cast<const void*>(garbage)), std::nullopt) << garbage;
  }

  ok(cudaHostUnregister(registered.data()));
  EXPECT_EQ(runtime.locate(registered.data()), std::nullopt);
  ok(cudaFree(managed));
  ok(cudaFree(plain_device));
  runtime.free_host(pinned);
  runtime.free(0, device, stream);
}

// --- memory -------------------------------------------------------------------------------------

TEST_F(GpuTest, allocates_aligned_memory_that_can_be_used_at_once) {
  const TestStream stream;
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{255},
                                  std::size_t{100000}, std::size_t{64} << 20}) {
    void* memory = runtime.allocate(0, bytes, stream);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 256, 0U);
    if (bytes > 0) {
      ok(cudaMemsetAsync(memory, 3, bytes, stream.get()));
    }
    runtime.free(0, memory, stream);
  }
  std::vector<void*> pinned;
  for (const std::size_t bytes : {0, 1, 500, 5000, 4096, 8192, 3000000}) {
    pinned.push_back(runtime.allocate_host(bytes));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pinned.back()) % 4096, 0U) << bytes;
    std::memset(pinned.back(), 1, bytes);
  }
  for (void* memory : pinned) {
    runtime.free_host(memory);
  }
}

TEST_F(GpuTest, keeps_freed_memory_for_the_next_call) {
  const TestStream stream;
  constexpr std::size_t kBytes = std::size_t{48} << 20;
  void* first = runtime.allocate(0, kBytes, stream);
  runtime.free(0, first, stream);
  ok(cudaDeviceSynchronize());
  std::size_t before = 0;
  std::size_t after = 0;
  std::size_t total = 0;
  ok(cudaMemGetInfo(&before, &total));
  void* second = runtime.allocate(0, kBytes, stream);
  ok(cudaMemGetInfo(&after, &total));
  EXPECT_EQ(before, after) << "memory was asked from the device again";
  runtime.free(0, second, stream);
}

TEST_F(GpuTest, frees_only_after_the_work_that_the_stream_has) {
  const TestStream stream;
  const Bytes bytes = numbered(1 << 20);
  auto* pinned = static_cast<std::byte*>(runtime.allocate_host(bytes.size()));
  void* memory = on_device(bytes, stream);
  {
    Gate gate(stream.get());
    runtime.copy(0, pinned, memory, bytes.size(), stream);
    runtime.free(0, memory, stream);
    // Would get the same memory at once if it were free already, and overwrite it.
    const TestStream other;
    void* next = runtime.allocate(0, bytes.size(), other);
    ok(cudaMemsetAsync(next, 0xee, bytes.size(), other.get()));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    gate.open();
    runtime.synchronise(0, stream);
    runtime.synchronise(0, other);
    runtime.free(0, next, other);
  }
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), pinned));
  runtime.free_host(pinned);
}

TEST_F(GpuTest, survives_running_out_of_memory) {
  const TestStream stream;
  EXPECT_THROW(static_cast<void>(runtime.allocate(0, std::size_t{1} << 46, stream)),
               std::bad_alloc);
  EXPECT_THROW(static_cast<void>(runtime.allocate_host(std::size_t{1} << 46)), std::bad_alloc);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  const Bytes bytes = numbered(1000);
  void* memory = on_device(bytes, stream);
  EXPECT_EQ(on_host(memory, bytes.size(), stream), bytes);
  runtime.free(0, memory, stream);
}

TEST_F(GpuTest, survives_a_call_that_fails) {
  const TestStream stream;
  Bytes bytes = numbered(256);
  void* memory = on_device(bytes, stream);
  try {
    runtime.copy_rows(0, bytes.data(), 4, memory, 4, 64, 2, stream);  // rows that overlap
    FAIL() << "CUDA is known to refuse this";
  } catch (const DeviceError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("cudaMemcpy2DAsync failed: cudaErrorInvalidPitchValue ("),
              std::string::npos)
        << text;
  }
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(on_host(memory, bytes.size(), stream), bytes);
  runtime.free(0, memory, stream);
}

// --- order --------------------------------------------------------------------------------------

TEST_F(GpuTest, has_one_stream_of_its_own_that_waits_for_no_other) {
  const Stream own = runtime.own_stream(0);
  EXPECT_EQ(own, runtime.own_stream(0));
  ASSERT_NE(own.handle, nullptr);
  unsigned flags = 0;
  ok(cudaStreamGetFlags(native(own), &flags));
  EXPECT_EQ(flags, cudaStreamNonBlocking);
  Gate gate(cudaStreamLegacy);
  runtime.synchronise(0, own);
  EXPECT_FALSE(gate.passed());
}

TEST_F(GpuTest, events_come_when_the_work_before_them_is_done) {
  const TestStream stream;
  Event event;
  {
    Gate gate(stream.get());
    event = runtime.record(0, stream);
    EXPECT_FALSE(runtime.has_come(event));
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  }
  runtime.synchronise(event);
  EXPECT_TRUE(runtime.has_come(event));
  runtime.release(event);
}

TEST_F(GpuTest, a_stream_waits_for_the_event_of_another) {
  const TestStream first;
  const TestStream second;
  Gate gate(first.get());
  const Event event = runtime.record(0, first);
  runtime.wait(0, second, event);
  runtime.release(event);  // what waits for it still does
  const Event reached = runtime.record(0, second);
  EXPECT_FALSE(runtime.has_come(reached));
  gate.open();
  runtime.synchronise(reached);
  runtime.release(reached);
}

TEST_F(GpuTest, events_are_used_again_and_each_by_one_at_a_time) {
  const TestStream stream;
  std::set<void*> handles;
  for (int round = 0; round < 100; ++round) {
    const Event event = runtime.record(0, stream);
    handles.insert(event.handle);
    runtime.release(event);
  }
  EXPECT_EQ(handles.size(), 1U);
  std::vector<Event> held;
  for (int i = 0; i < 50; ++i) {
    held.push_back(runtime.record(0, stream));
  }
  handles.clear();
  for (const Event event : held) {
    EXPECT_TRUE(handles.insert(event.handle).second);
    runtime.release(event);
  }
}

TEST_F(GpuTest, events_are_for_all_threads) {
  const TestStream stream;
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        const Event event = runtime.record(0, stream);
        runtime.synchronise(event);
        failures += runtime.has_come(event) ? 0 : 1;
        runtime.release(event);
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(failures, 0);
}

TEST_F(GpuTest, calls_once_when_the_work_is_done) {
  const TestStream stream;
  std::atomic<int> calls = 0;
  {
    Gate gate(stream.get());
    runtime.call_when_done(
        0, stream, [](void* count) { ++*static_cast<std::atomic<int>*>(count); }, &calls);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(calls, 0);
  }
  runtime.synchronise(0, stream);
  EXPECT_EQ(calls, 1);
}

TEST_F(GpuTest, takes_every_way_to_name_a_stream) {
  const TestStream stream;
  for (const Stream named :
       {Stream{}, Stream{cudaStreamLegacy}, Stream{cudaStreamPerThread}, Stream{stream.get()}}) {
    const Bytes bytes = numbered(3000);
    void* memory = on_device(bytes, named);
    EXPECT_FALSE(runtime.is_capturing(0, named));
    const Event event = runtime.record(0, named);
    runtime.wait(0, named, event);
    runtime.synchronise(event);
    runtime.release(event);
    EXPECT_EQ(on_host(memory, bytes.size(), named), bytes);
    runtime.free(0, memory, named);
  }
}

// --- copies -------------------------------------------------------------------------------------

TEST_F(GpuTest, copies_rows_either_way_and_leaves_what_is_between) {
  const TestStream stream;
  const Bytes source = numbered(100 * 40);
  void* memory = on_device(source, stream);
  Bytes target(100 * 50, std::byte{0xaa});
  runtime.copy_rows(0, target.data(), 50, memory, 40, 33, 100, stream);
  runtime.synchronise(0, stream);
  for (std::size_t row = 0; row < 100; ++row) {
    for (std::size_t i = 0; i < 50; ++i) {
      ASSERT_EQ(target[row * 50 + i], i < 33 ? source[row * 40 + i] : std::byte{0xaa});
    }
  }
  runtime.copy_rows(0, memory, 40, target.data(), 50, 7, 100, stream);
  EXPECT_EQ(on_host(memory, source.size(), stream), source);
  runtime.copy_rows(0, memory, 40, target.data(), 50, 0, 100, stream);
  runtime.copy_rows(0, memory, 40, target.data(), 50, 7, 0, stream);
  runtime.free(0, memory, stream);
}

TEST_F(GpuTest, copies_rows_that_are_farther_apart_than_a_pitch_can_say) {
  const TestStream stream;
  constexpr std::size_t kPitch = std::size_t{5} << 29;
  void* memory = runtime.allocate(0, 2 * kPitch + 64, stream);
  const Bytes rows = numbered(3 * 64);
  runtime.copy_rows(0, memory, kPitch, rows.data(), 64, 64, 3, stream);
  Bytes back(3 * 64);
  runtime.copy_rows(0, back.data(), 64, memory, kPitch, 64, 3, stream);
  runtime.synchronise(0, stream);
  EXPECT_EQ(back, rows);
  runtime.free(0, memory, stream);
}

TEST_F(GpuTest, pinned_copies_are_only_begun) {
  const TestStream stream;
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  void* pinned = runtime.allocate_host(kBytes);
  void* memory = runtime.allocate(0, kBytes, stream);
  Event event;
  {
    Gate gate(stream.get());
    runtime.copy(0, pinned, memory, kBytes, stream);
    runtime.copy(0, memory, pinned, kBytes, stream);
    event = runtime.record(0, stream);
    EXPECT_FALSE(runtime.has_come(event));
  }
  runtime.synchronise(event);
  runtime.release(event);
  runtime.free(0, memory, stream);
  runtime.free_host(pinned);
}

// --- several devices ----------------------------------------------------------------------------

TEST_F(GpuTest, leaves_the_current_device_as_it_was) {
  if (runtime.device_count() < 2) {
    GTEST_SKIP() << "only one device here";
  }
  const Stream own = runtime.own_stream(1);
  const Bytes bytes = numbered(1000);
  void* memory = on_device(bytes, own, 1);
  EXPECT_EQ(runtime.locate(memory), (Device{kDLCUDA, 1}));
  EXPECT_EQ(on_host(memory, bytes.size(), own, 1), bytes);
  const Event event = runtime.record(1, own);
  runtime.synchronise(event);
  runtime.release(event);
  runtime.free(1, memory, own);
  int device = -1;
  ok(cudaGetDevice(&device));
  EXPECT_EQ(device, 0);
  EXPECT_THROW(static_cast<void>(runtime.record(0, own)), DeviceError);
  EXPECT_THROW(static_cast<void>(runtime.allocate(0, 16, own)), DeviceError);
}

}  // namespace
}  // namespace dlbridge::gpu
