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

  static constexpr std::size_t kRoom = std::size_t{64} << 20;
  Stream stream;
  std::byte* source = nullptr;
  std::byte* target = nullptr;
};

TEST_F(CopyElements, of_every_pair_of_types_in_any_layout) {
  Generator random(21);
  for (const auto& from : kNamedDTypes) {
    for (const auto& to : kNamedDTypes) {
      if (!can_cast(from.dtype, to.dtype)) {
        continue;
      }
      CopyJob plain;
      plain.source_dtype = from.dtype;
      plain.target_dtype = to.dtype;
      expect_as_host(random.job(plain, 1, 5000, true));
      for (int round = 0; round < 4; ++round) {
        const CopyJob flags = random.flags(from.dtype, to.dtype);
        expect_as_host(random.job(flags, 1 + round, 2000, round % 2 == 0));
      }
      ASSERT_FALSE(HasFatalFailure());
    }
  }
}

TEST_F(CopyElements, of_every_width_in_any_layout) {
  Generator random(22);
  for (const DType type : {DType{kDLUInt, 8}, DType{kDLInt, 16}, DType{kDLFloat, 32},
                           DType{kDLComplex, 64}, DType{kDLComplex, 128}}) {
    for (int round = 0; round < 150; ++round) {
      CopyJob flags = random.flags(type, type);
      if (round % 2 == 0) {
        flags = CopyJob{};
        flags.source_dtype = flags.target_dtype = type;
      }
      expect_as_host(random.job(flags, round % 9, 20000, round % 3 != 0));
      ASSERT_FALSE(HasFatalFailure());
    }
  }
}

TEST_F(CopyElements, of_any_size) {
  Generator random(23);
  for (const DType type : random_jobs::types_without_numbers()) {
    for (int round = 0; round < 30; ++round) {
      CopyJob flags;
      flags.source_dtype = flags.target_dtype = type;
      flags.swap_bytes = round % 3 == 0;
      expect_as_host(random.job(flags, round % 5, 1000, round % 2 == 0));
      ASSERT_FALSE(HasFatalFailure());
    }
  }
}

TEST_F(CopyElements, transposed) {
  Generator random(24);
  for (const auto& [from, to] : {std::pair<DType, DType>{{kDLUInt, 8}, {kDLUInt, 8}},
                                 {{kDLBfloat, 16}, {kDLBfloat, 16}},
                                 {{kDLFloat, 32}, {kDLFloat, 32}},
                                 {{kDLFloat, 64}, {kDLFloat, 64}},
                                 {{kDLComplex, 128}, {kDLComplex, 128}},
                                 {{kDLUInt, 8}, {kDLFloat, 32}},
                                 {{kDLFloat, 32}, {kDLBfloat, 16}},
                                 {{kDLFloat, 64}, {kDLComplex, 128}}}) {
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{
             {512, 512}, {500, 333}, {65, 4000}, {16, 200}, {129, 2, 2, 70}, {30, 30, 30}}) {
      CopyJob flags;
      flags.source_dtype = from;
      flags.target_dtype = to;
      flags.negate = shape.size() == 3;
      expect_as_host(random.transpose(flags, shape, true));
      expect_as_host(random.transpose(flags, shape, false));
      ASSERT_FALSE(HasFatalFailure());
    }
  }
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
