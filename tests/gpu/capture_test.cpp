// Streams that are captured into a graph: nothing here ends the capture, on that stream or beside
// it.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>

#include "gpu.hpp"

namespace dlbridge::gpu {
namespace {

class CaptureTest : public GpuTest, public ::testing::WithParamInterface<cudaStreamCaptureMode> {
 protected:
  /// Captures a memset of `memory` on the stream and, in between, does that; then runs the graph.
  void capture(cudaStream_t stream, void* memory, const std::function<void()>& in_between) {
    ok(cudaStreamBeginCapture(stream, GetParam()));
    in_between();
    ok(cudaMemsetAsync(memory, 0x5a, 64, stream));
    cudaGraph_t graph = nullptr;
    ok(cudaStreamEndCapture(stream, &graph));
    ASSERT_NE(graph, nullptr);
    cudaGraphExec_t executable = nullptr;
    ok(cudaGraphInstantiate(&executable, graph, 0));
    ok(cudaGraphLaunch(executable, stream));
    ok(cudaStreamSynchronize(stream));
    ok(cudaGraphExecDestroy(executable));
    ok(cudaGraphDestroy(graph));
  }
};

TEST_P(CaptureTest, is_not_ended_by_any_call_on_another_stream) {
  const TestStream captured;
  const TestStream other;
  void* memory = runtime.allocate(0, 64, captured);
  void* pinned = runtime.allocate_host(64);
  runtime.synchronise(0, captured);
  capture(captured.get(), memory, [&] {
    EXPECT_TRUE(runtime.is_capturing(0, captured));
    EXPECT_FALSE(runtime.is_capturing(0, other));
    void* more = runtime.allocate(0, 1 << 20, other);
    void* more_pinned = runtime.allocate_host(1 << 16);
    EXPECT_TRUE(runtime.locate(more).has_value());
    runtime.copy(0, more, pinned, 64, other);
    runtime.copy_rows(0, more, 32, pinned, 8, 8, 4, other);
    const std::int64_t shape[] = {5, 6};
    const std::int64_t rows[] = {24, 4};
    const std::int64_t columns[] = {4, 20};
    CopyJob job;
    job.ndim = 2;
    job.shape = shape;
    job.source = more;
    job.source_strides_bytes = columns;
    job.target = static_cast<std::byte*>(more) + 4096;
    job.target_strides_bytes = rows;
    job.source_dtype = job.target_dtype = {kDLFloat, 32};
    runtime.copy_elements(0, job, other);
    runtime.call_when_done(
        0, other, [](void*) {}, nullptr);
    const Event event = runtime.record(0, other);
    runtime.wait(0, runtime.own_stream(0), event);
    static_cast<void>(runtime.has_come(event));
    runtime.synchronise(event);
    EXPECT_TRUE(runtime.has_come(event));
    runtime.release(event);
    runtime.synchronise(0, other);
    runtime.free(0, more, other);
    runtime.free_host(more_pinned);
    EXPECT_THROW(static_cast<void>(runtime.allocate(0, std::size_t{1} << 46, other)),
                 std::bad_alloc);
  });
  std::byte value{};
  runtime.copy(0, &value, memory, 1, captured);
  runtime.synchronise(0, captured);
  EXPECT_EQ(value, std::byte{0x5a});
  runtime.free(0, memory, captured);
  runtime.free_host(pinned);
}

TEST_P(CaptureTest, is_not_ended_by_calls_on_the_captured_stream_that_cannot_be_part_of_it) {
  const TestStream captured;
  const TestStream other;
  void* memory = runtime.allocate(0, 64, captured);
  void* spare = runtime.allocate(0, 64, captured);
  runtime.synchronise(0, captured);
  const Event event = runtime.record(0, other);
  capture(captured.get(), memory, [&] {
    EXPECT_THROW(static_cast<void>(runtime.allocate(0, 64, captured)), DeviceError);
    EXPECT_THROW(static_cast<void>(runtime.record(0, captured)), DeviceError);
    EXPECT_THROW(runtime.wait(0, captured, event), DeviceError);
    EXPECT_THROW(runtime.synchronise(0, captured), DeviceError);
    EXPECT_THROW(runtime.call_when_done(
                     0, captured, [](void*) {}, nullptr),
                 DeviceError);
    runtime.free(0, spare, captured);
    try {
      runtime.synchronise(0, captured);
    } catch (const DeviceError& error) {
      EXPECT_NE(std::string(error.what()).find("captured into a graph"), std::string::npos);
    }
  });
  runtime.release(event);
  runtime.free(0, memory, captured);
}

TEST_P(CaptureTest, takes_copies_on_the_captured_stream_into_the_graph) {
  const TestStream stream;
  constexpr std::size_t kCount = 40 * 50;
  void* from = runtime.allocate(0, kCount * 4, stream);
  void* to = runtime.allocate(0, kCount * 4, stream);
  auto* pinned = static_cast<float*>(runtime.allocate_host(kCount * 4));
  for (std::size_t i = 0; i < kCount; ++i) {
    pinned[i] = static_cast<float>(i);
  }
  void* scratch = runtime.allocate(0, 64, stream);
  runtime.synchronise(0, stream);
  capture(stream.get(), scratch, [&] {
    runtime.copy(0, from, pinned, kCount * 4, stream);
    const std::int64_t shape[] = {50, 40};
    const std::int64_t source[] = {4, 200};
    const std::int64_t target[] = {160, 4};
    CopyJob job;
    job.ndim = 2;
    job.shape = shape;
    job.source = from;
    job.source_strides_bytes = source;
    job.target = to;
    job.target_strides_bytes = target;
    job.source_dtype = job.target_dtype = {kDLFloat, 32};
    runtime.copy_elements(0, job, stream);
  });
  std::vector<float> result(kCount);
  runtime.copy(0, result.data(), to, kCount * 4, stream);
  runtime.synchronise(0, stream);
  for (std::size_t row = 0; row < 50; ++row) {
    for (std::size_t column = 0; column < 40; ++column) {
      ASSERT_EQ(result[row * 40 + column], pinned[column * 50 + row]);
    }
  }
  for (void* memory : {from, to, scratch}) {
    runtime.free(0, memory, stream);
  }
  runtime.free_host(pinned);
}

// The legacy default stream waits for streams that were made without cudaStreamNonBlocking, so it
// cannot be used while one of them is captured.
TEST_P(CaptureTest, is_not_ended_by_calls_on_the_legacy_stream) {
  const TestStream captured(cudaStreamDefault);
  void* memory = runtime.allocate(0, 64, captured);
  runtime.synchronise(0, captured);
  capture(captured.get(), memory, [&] {
    for (const Stream legacy : {Stream{}, Stream{cudaStreamLegacy}}) {
      EXPECT_TRUE(runtime.is_capturing(0, legacy));
      std::byte value{};
      EXPECT_THROW(runtime.copy(0, memory, &value, 1, legacy), DeviceError);
      EXPECT_THROW(static_cast<void>(runtime.allocate(0, 64, legacy)), DeviceError);
      EXPECT_THROW(static_cast<void>(runtime.record(0, legacy)), DeviceError);
      EXPECT_THROW(runtime.synchronise(0, legacy), DeviceError);
    }
  });
  EXPECT_FALSE(runtime.is_capturing(0, Stream{}));
  runtime.free(0, memory, captured);
}

INSTANTIATE_TEST_SUITE_P(modes, CaptureTest,
                         ::testing::Values(cudaStreamCaptureModeGlobal,
                                           cudaStreamCaptureModeThreadLocal,
                                           cudaStreamCaptureModeRelaxed),
                         [](const auto& mode) {
                           return mode.param == cudaStreamCaptureModeGlobal        ? "global"
                                  : mode.param == cudaStreamCaptureModeThreadLocal ? "thread"
                                                                                   : "relaxed";
                         });

}  // namespace
}  // namespace dlbridge::gpu
