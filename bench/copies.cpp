// The host copy engine against the machine's memory. Every line counts bytes read and written; the
// first, "stream/add", is what the memory gives to plain loops of as many threads, so that any
// other line divided by it is the fraction reached.

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "dlbridge/copy.hpp"
#include "dlbridge/threads.hpp"

namespace {

using dlbridge::CopyJob;
using dlbridge::DType;
using Extents = std::vector<std::int64_t>;

void add_part(std::vector<double>& a, const std::vector<double>& b, const std::vector<double>& c,
              std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    a[i] = b[i] + c[i];
  }
}

void stream_add(benchmark::State& state) {
  constexpr std::size_t kCount = 8 * 1024 * 1024;
  const auto threads = static_cast<std::size_t>(dlbridge::copy_threads());
  std::vector<double> a(kCount);
  std::vector<double> b(kCount, 1.0);
  std::vector<double> c(kCount, 2.0);
  for ([[maybe_unused]] auto _ : state) {
    std::vector<std::thread> team;
    for (std::size_t i = 0; i < threads; ++i) {
      team.emplace_back(
          [&, i] { add_part(a, b, c, kCount * i / threads, kCount * (i + 1) / threads); });
    }
    for (auto& member : team) {
      member.join();
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<std::int64_t>(3 * kCount * sizeof(double)));
}
BENCHMARK(stream_add)->Name("stream/add")->UseRealTime();

/// A copy into a packed target. `order` is how the source's dimensions lie in memory, outermost
/// first, as indices into `shape`; `backwards` reads every dimension from its end.
struct Case {
  std::string name;
  std::string from;
  std::string to;
  Extents shape;
  std::vector<std::size_t> order;
  bool backwards = false;
  bool conjugate = false;
};

void copy(benchmark::State& state, const Case& what) {
  CopyJob job;
  job.source_dtype = dlbridge::dtype_named(what.from).value();
  job.target_dtype = dlbridge::dtype_named(what.to).value();
  job.conjugate = what.conjugate;
  job.ndim = static_cast<std::int32_t>(what.shape.size());
  job.shape = what.shape.data();

  const std::size_t ndim = what.shape.size();
  Extents source_strides(ndim);
  Extents target_strides(ndim);
  std::int64_t source_step = job.source_dtype.itemsize();
  std::int64_t target_step = job.target_dtype.itemsize();
  std::int64_t first = 0;
  for (std::size_t i = ndim; i-- > 0;) {
    const std::size_t dim = what.order[i];
    source_strides[dim] = what.backwards ? -source_step : source_step;
    first += what.backwards ? (what.shape[dim] - 1) * source_step : 0;
    source_step *= what.shape[dim];
    target_strides[i] = target_step;
    target_step *= what.shape[i];
  }
  std::vector<std::byte> source(static_cast<std::size_t>(source_step));
  std::vector<std::byte> target(static_cast<std::size_t>(target_step));
  // Small numbers in whatever type, so that no conversion meets only zeros.
  for (std::size_t i = 0; i < source.size(); ++i) {
    source[i] = static_cast<std::byte>(i % 61);
  }
  job.source = source.data() + first;
  job.source_strides_bytes = source_strides.data();
  job.target = target.data();
  job.target_strides_bytes = target_strides.data();
  for ([[maybe_unused]] auto _ : state) {
    dlbridge::copy_elements(job);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * (source_step + target_step));
}

const std::vector<Case>& cases() {
  static const Extents square = {4096, 4096};
  static const Extents images = {64, 3, 224, 224};
  static const std::vector<std::size_t> straight = {0, 1};
  static const std::vector<std::size_t> turned = {1, 0};
  static const std::vector<std::size_t> channels_last = {0, 2, 3, 1};
  static const std::vector<Case> all = {
      {"small/4x8", "float32", "float32", {4, 8}, straight},
      {"small/4x8_transposed", "float32", "float32", {4, 8}, turned},
      {"small/4x8_cast", "int32", "float32", {4, 8}, straight},
      {"packed/1MiB", "float32", "float32", {512, 512}, straight},
      {"packed/64MiB", "float32", "float32", square, straight},
      {"transposed/uint8", "uint8", "uint8", square, turned},
      {"transposed/bfloat16", "bfloat16", "bfloat16", square, turned},
      {"transposed/float32", "float32", "float32", square, turned},
      {"transposed/float32_odd", "float32", "float32", {5001, 3000}, turned},
      {"transposed/float64", "float64", "float64", square, turned},
      {"transposed/complex128", "complex128", "complex128", {2048, 2048}, turned},
      {"transposed/float32_to_float64", "float32", "float64", square, turned},
      {"reversed/float32", "float32", "float32", square, straight, true},
      {"reversed/uint8", "uint8", "uint8", square, straight, true},
      {"channels/nhwc_to_nchw_uint8", "uint8", "uint8", images, channels_last},
      {"channels/nhwc_to_nchw_float32", "uint8", "float32", images, channels_last},
      {"channels/nchw_to_nhwc_uint8", "uint8", "uint8", {64, 224, 224, 3}, {0, 3, 1, 2}},
      {"channels/nchw_to_nhwc_64", "float32", "float32", {4, 224, 224, 64}, {0, 3, 1, 2}},
      {"conjugate/complex64", "complex64", "complex64", {2048, 4096}, straight, false, true},
      {"cast/bfloat16_float32", "bfloat16", "float32", square, straight},
      {"cast/float32_bfloat16", "float32", "bfloat16", square, straight},
      {"cast/float16_float32", "float16", "float32", square, straight},
      {"cast/float32_float16", "float32", "float16", square, straight},
      {"cast/float8_e4m3fn_float32", "float8_e4m3fn", "float32", square, straight},
      {"cast/float32_float8_e4m3fn", "float32", "float8_e4m3fn", square, straight},
      {"cast/uint8_float32", "uint8", "float32", square, straight},
      {"cast/float32_uint8", "float32", "uint8", square, straight},
      {"cast/float32_int32", "float32", "int32", square, straight},
      {"cast/int64_float32", "int64", "float32", {2048, 4096}, straight},
      {"cast/float64_float32", "float64", "float32", square, straight},
      {"cast/float32_float64", "float32", "float64", square, straight},
  };
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  for (const Case& what : cases()) {
    benchmark::RegisterBenchmark(what.name.c_str(), copy, what)->UseRealTime();
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
