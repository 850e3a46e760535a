// copy_elements() of the CUDA runtime against the host's.

#include <algorithm>
#include <cstdint>

#include "cuda/random_jobs.hpp"
#include "gpu.hpp"

namespace dlbridge::gpu {
namespace {

using random_jobs::Bytes;
using random_jobs::Generator;
using random_jobs::Job;

class CopyElements : public GpuTest {
 protected:
  /// Room on the device for jobs of up to so many bytes on either side.
  void SetUp() override {
    GpuTest::SetUp();
    if (runtime.device_count() > 0) {
      stream = runtime.own_stream(0);
      source = static_cast<std::byte*>(runtime.allocate(0, kRoom, stream));
      target = static_cast<std::byte*>(runtime.allocate(0, kRoom, stream));
      runtime.synchronise(0, stream);  // from here on for any stream
    }
  }

  void TearDown() override {
    if (runtime.device_count() > 0) {
      runtime.free(0, source, stream);
      runtime.free(0, target, stream);
    }
    GpuTest::TearDown();
  }

  void expect_as_host(const Job& job) {
    ASSERT_LE(std::max(job.source.memory.size(), job.target.memory.size()), kRoom);
    runtime.copy(0, source, job.source.memory.data(), job.source.memory.size(), stream);
    runtime.copy(0, target, job.target.memory.data(), job.target.memory.size(), stream);
    runtime.copy_elements(0, job.at(source, target), stream);
    expect_same(job, copied_by_host(job), on_host(target, job.target.memory.size(), stream));
  }

  auto as_host() {
    return [this](const Job& job, int /*round*/) { expect_as_host(job); };
  }

  static constexpr std::size_t kRoom = std::size_t{64} << 20;
  Stream stream;
  std::byte* source = nullptr;
  std::byte* target = nullptr;
};

TEST_F(CopyElements, of_every_pair_of_types_in_any_layout) {
  random_jobs::of_every_pair_of_types(21, 5000, {4, 2000}, as_host());
}

TEST_F(CopyElements, of_every_width_in_any_layout) {
  random_jobs::of_every_width(22, {150, 20000}, as_host());
}

TEST_F(CopyElements, of_any_size) {
  random_jobs::of_any_size(23, {30, 1000}, as_host());
}

TEST_F(CopyElements, transposed) {
  random_jobs::transposed(
      24, {{512, 512}, {500, 333}, {65, 4000}, {16, 200}, {129, 2, 2, 70}, {30, 30, 30}},
      as_host());
}

// More words than 32-bit indices reach: every second byte of 4.5 GiB.
TEST_F(CopyElements, beyond_32_bits) {
  constexpr std::int64_t kCount = (std::int64_t{1} << 31) + (std::int64_t{1} << 28) + 3;
  std::byte* large = nullptr;
  try {
    large = static_cast<std::byte*>(runtime.allocate(0, 3 * std::size_t{kCount}, stream));
  } catch (const std::bad_alloc&) {
    GTEST_SKIP() << "not 7 GB free on the device";
  }
  ok(cudaMemsetAsync(large, 0, 3 * std::size_t{kCount}, native(stream)));
  // A mark at either end of the source, and beyond the index of 2^31.
  const std::int64_t marks[] = {0, kCount / 2, kCount - 2, kCount - 1};
  for (const std::int64_t mark : marks) {
    ok(cudaMemsetAsync(large + 2 * mark, static_cast<int>(1 + mark % 100), 1, native(stream)));
  }
  const std::int64_t source_stride = 2;
  const std::int64_t target_stride = 1;
  CopyJob job;
  job.ndim = 1;
  job.shape = &kCount;
  job.source = large;
  job.source_strides_bytes = &source_stride;
  job.target = large + 2 * kCount;
  job.target_strides_bytes = &target_stride;
  job.source_dtype = job.target_dtype = {kDLUInt, 8};
  runtime.copy_elements(0, job, stream);
  for (const std::int64_t mark : marks) {
    EXPECT_EQ(on_host(large + 2 * kCount + mark, 1, stream).front(),
              static_cast<std::byte>(1 + mark % 100))
        << mark;
  }
  runtime.free(0, large, stream);
}

TEST_F(CopyElements, is_only_begun_and_in_the_order_of_its_stream) {
  const TestStream own;
  const Bytes ones(4 << 20, std::byte{1});
  void* pinned = runtime.allocate_host(ones.size());
  std::memcpy(pinned, ones.data(), ones.size());
  ok(cudaMemsetAsync(source, 0, ones.size(), own.get()));
  const std::int64_t shape[] = {2048, 2048};
  const std::int64_t rows[] = {2048, 1};
  const std::int64_t columns[] = {1, 2048};
  CopyJob job;
  job.ndim = 2;
  job.shape = shape;
  job.source = source;
  job.source_strides_bytes = columns;
  job.target = target;
  job.target_strides_bytes = rows;
  job.source_dtype = job.target_dtype = {kDLUInt, 8};
  Event event;
  {
    Gate gate(own.get());
    runtime.copy(0, source, pinned, ones.size(), own);
    runtime.copy_elements(0, job, own);
    event = runtime.record(0, own);
    EXPECT_FALSE(runtime.has_come(event));
  }
  runtime.synchronise(event);
  runtime.release(event);
  EXPECT_EQ(on_host(target, ones.size(), own), ones);
  runtime.free_host(pinned);
}

}  // namespace
}  // namespace dlbridge::gpu
