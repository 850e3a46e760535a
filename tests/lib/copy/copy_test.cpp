// Against a reference that is slow and written another way, element by element.

#include "dlbridge/copy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "dlbridge/threads.hpp"
#include "lib/copy/copy_reference.hpp"

namespace dlbridge {
namespace {

using namespace copy_reference;

using Bytes = std::vector<std::byte>;
std::mt19937_64 random_bits(20240607);

std::int64_t random_int(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(random_bits);
}

// ---- whole jobs

/// Memory for one side of a job.
struct Side {
  std::vector<std::int64_t> strides;
  Bytes memory;
  std::size_t offset = 0;  // of the element of index zero

  void allocate(const std::vector<std::int64_t>& shape, std::int64_t itemsize) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const std::int64_t reach = std::max<std::int64_t>(shape[i] - 1, 0) * strides[i];
      (reach < 0 ? low : high) += reach;
    }
    const std::int64_t before = random_int(0, 70);
    offset = static_cast<std::size_t>(before - low);
    memory.resize(static_cast<std::size_t>(before - low + high + itemsize + random_int(0, 70)));
  }
};

/// Carries out the job and compares all of the target's memory, gaps and margins included.
void check(CopyJob job, const std::vector<std::int64_t>& shape, const Side& source, Side& target) {
  job.ndim = static_cast<std::int32_t>(shape.size());
  job.shape = shape.data();
  job.source = source.memory.data() + source.offset;
  job.source_strides_bytes = source.strides.data();
  job.target_strides_bytes = target.strides.data();
  for (auto& byte : target.memory) {
    byte = static_cast<std::byte>(random_bits());
  }
  Bytes expected = target.memory;
  job.target = target.memory.data() + target.offset;
  copy_elements(job);

  const std::int64_t count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const DType part = part_of(job.target_dtype);
  const auto itemsize = static_cast<std::size_t>(job.target_dtype.itemsize());
  for (std::int64_t n = 0; n < count; ++n) {
    auto from = static_cast<std::ptrdiff_t>(source.offset);
    auto to = static_cast<std::ptrdiff_t>(target.offset);
    for (std::size_t i = shape.size(), rest = static_cast<std::size_t>(n); i-- > 0;) {
      const auto extent = static_cast<std::size_t>(shape[i]);
      from += static_cast<std::int64_t>(rest % extent) * source.strides[i];
      to += static_cast<std::int64_t>(rest % extent) * target.strides[i];
      rest /= extent;
    }
    std::byte* wanted = expected.data() + to;
    std::byte* got = target.memory.data() + to;
    reference_element(job, source.memory.data() + from, wanted);
    // The bits of a NaN may differ; anything else may not.
    if (job.source_dtype != job.target_dtype) {
      for (std::size_t at = 0; at < itemsize; at += part.bits / 8U) {
        ASSERT_TRUE(same_number(part, got + at, wanted + at))
            << "element " << n << " wanted " << read(part, wanted + at).r << " got "
            << read(part, got + at).r;
      }
      std::memcpy(got, wanted, itemsize);
    }
  }
  const auto different = std::mismatch(expected.begin(), expected.end(), target.memory.begin());
  ASSERT_EQ(different.first, expected.end())
      << "byte " << different.first - expected.begin() << " of " << expected.size();
}

std::vector<std::int64_t> random_shape(int ndim, std::int64_t elements) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(ndim), 1);
  for (auto& extent : shape) {
    const std::int64_t most = std::max<std::int64_t>(1, elements);
    extent = random_int(0, 40) == 0  ? 0
             : random_int(0, 3) == 0 ? random_int(1, std::min<std::int64_t>(most, 4))
                                     : random_int(1, most);
    elements /= std::max<std::int64_t>(1, extent);
  }
  std::shuffle(shape.begin(), shape.end(), random_bits);
  return shape;
}

// Elements side by side in some order of the dimensions, now and then with gaps, some backwards.
std::vector<std::int64_t> random_strides(const std::vector<std::int64_t>& shape,
                                         std::int64_t itemsize, bool plain) {
  std::vector<std::size_t> order(shape.size());
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  if (!plain) {
    std::shuffle(order.begin(), order.end(), random_bits);
  }
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t step = itemsize;
  for (const std::size_t dim : order) {
    if (!plain && random_int(0, 4) == 0) {
      step += random_int(0, 1) == 0 ? itemsize * random_int(1, 3) : random_int(1, 9);
    }
    strides[dim] = !plain && random_int(0, 3) == 0 ? -step : step;
    step *= std::max<std::int64_t>(1, shape[dim]);
  }
  return strides;
}

void fill(DType dtype, Bytes& memory) {
  for (auto& byte : memory) {
    byte = static_cast<std::byte>(random_bits());
  }
  const DType part = part_of(dtype);
  if (!is_small_float(part) && !part.is(kDLFloat)) {
    return;
  }
  // Random bits are mostly out of the range of smaller types; put in numbers of common size.
  const std::size_t width = part.bits / 8U;
  for (std::size_t at = 0; at + width <= memory.size(); at += width) {
    if (random_int(0, 9) < 7) {
      Number n;
      n.r = std::ldexp(static_cast<double>(random_int(-4096, 4096)),
                       static_cast<int>(random_int(-24, 12)));
      n.r += random_int(0, 1) == 0 ? 0 : std::ldexp(n.r, -static_cast<int>(random_int(10, 52)));
      write(part, memory.data() + at, n);
    }
  }
}

void check_random_layout(CopyJob job, std::int64_t elements, int ndim) {
  const auto shape = random_shape(ndim, elements);
  const std::int64_t from_size = job.source_dtype.itemsize();
  const std::int64_t to_size = job.target_dtype.itemsize();
  Side source{random_strides(shape, from_size, random_int(0, 2) == 0), {}, 0};
  for (auto& stride : source.strides) {
    stride = random_int(0, 9) == 0 ? 0 : random_int(0, 19) == 0 ? random_int(-50, 50) : stride;
  }
  Side target{random_strides(shape, to_size, random_int(0, 2) == 0), {}, 0};
  source.allocate(shape, from_size);
  target.allocate(shape, to_size);
  fill(job.source_dtype, source.memory);
  SCOPED_TRACE(::testing::Message()
               << "shape " << ::testing::PrintToString(shape) << " source "
               << ::testing::PrintToString(source.strides) << " target "
               << ::testing::PrintToString(target.strides) << " swap " << job.swap_bytes << " conj "
               << job.conjugate << " neg " << job.negate);
  check(job, shape, source, target);
}

CopyJob job_of(DType from, DType to) {
  CopyJob job;
  job.source_dtype = from;
  job.target_dtype = to;
  return job;
}

CopyJob random_flags(CopyJob job) {
  job.swap_bytes = random_int(0, 3) == 0;
  job.conjugate = random_int(0, 3) == 0;
  job.negate = random_int(0, 3) == 0;
  return job;
}

std::vector<DType> castable_types() {
  std::vector<DType> types;
  for (const auto& row : kNamedDTypes) {
    if (row.dtype.lanes == 1 && row.dtype.bits >= 8 && !row.dtype.is(kDLOpaqueHandle)) {
      types.push_back(row.dtype);
    }
  }
  return types;
}

// ---- the tests

TEST(CanCast, NumbersToNumbersButNoComplexToReal) {
  for (const DType from : castable_types()) {
    for (const DType to : castable_types()) {
      const bool lossy = from.is(kDLComplex) && !to.is(kDLComplex);
      EXPECT_EQ(can_cast(from, to), !lossy) << int{from.code} << " " << int{to.code};
    }
  }
}

TEST(CanCast, TypesWithoutNumbersOnlyToThemselves) {
  const DType float32 = {kDLFloat, 32};
  for (const DType type : {DType{kDLFloat, 32, 4}, DType{kDLUInt, 8, 3}, DType{kDLFloat, 64, 3},
                           DType{kDLFloat4_e2m1fn, 4, 2}, DType{kDLOpaqueHandle, 64},
                           DType{kDLFloat, 128}, DType{99, 24}}) {
    EXPECT_TRUE(can_cast(type, type));
    EXPECT_FALSE(can_cast(type, float32));
    EXPECT_FALSE(can_cast(float32, type));
  }
  for (const char* name : {"float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int2", "int4",
                           "uint1", "uint2", "uint4"}) {
    const DType type = dtype_named(name).value();
    EXPECT_FALSE(can_cast(type, type)) << name;
    EXPECT_FALSE(can_cast(type, float32)) << name;
  }
}

TEST(Copy, AnyLayoutOfAnyWidth) {
  for (const DType type :
       {DType{kDLUInt, 8}, DType{kDLInt, 16}, DType{kDLFloat, 32}, DType{kDLFloat, 64},
        DType{kDLComplex, 128}, DType{kDLComplex, 32}, DType{kDLComplex, 64}}) {
    for (int round = 0; round < 400; ++round) {
      check_random_layout(random_flags(job_of(type, type)), 2000, round % 8);
      if (HasFatalFailure()) {
        return;
      }
    }
  }
}

TEST(Copy, ElementsOfAnySize) {
  for (const DType type :
       {DType{kDLUInt, 8, 3}, DType{kDLFloat, 64, 3}, DType{kDLFloat, 32, 4}, DType{99, 24},
        DType{kDLFloat4_e2m1fn, 4, 2}, DType{kDLFloat, 128}, DType{kDLComplex, 64, 2},
        DType{kDLFloat6_e2m3fn, 6, 4}, DType{kDLInt, 16, 31}, DType{kDLOpaqueHandle, 64}}) {
    for (int round = 0; round < 60; ++round) {
      CopyJob job = job_of(type, type);
      job.swap_bytes = round % 3 == 0;
      check_random_layout(job, 300, round % 5);
      if (HasFatalFailure()) {
        return;
      }
    }
  }
}

TEST(Copy, NegatesEveryNamedType) {
  for (const DType type : castable_types()) {
    for (int round = 0; round < 12; ++round) {
      CopyJob job = job_of(type, type);
      job.negate = true;
      job.conjugate = round % 2 == 0;
      check_random_layout(job, 600, round % 4);
      ASSERT_FALSE(HasFatalFailure()) << int{type.code};
    }
  }
}

TEST(Copy, LargeOnesOnSeveralThreads) {
  set_copy_threads(3);
  for (const auto& [from, to] : {std::pair<DType, DType>{{kDLFloat, 32}, {kDLFloat, 32}},
                                 {{kDLUInt, 8}, {kDLUInt, 8}},
                                 {{kDLUInt, 8}, {kDLFloat, 32}},
                                 {{kDLBfloat, 16}, {kDLFloat, 32}},
                                 {{kDLComplex, 64}, {kDLComplex, 64}},
                                 {{kDLInt, 64}, {kDLFloat, 64}},
                                 {{kDLInt, 16}, {kDLInt, 16}}}) {
    for (int round = 0; round < 4; ++round) {
      check_random_layout(random_flags(job_of(from, to)), 1500000, 1 + round % 4);
      if (HasFatalFailure()) {
        break;
      }
    }
  }
  set_copy_threads(0);
}

// More than a copy may hope to keep in the cache, from a cache line on and from within one: packed,
// transposed, wider than it was, and pixels into planes.
TEST(Copy, PastTheCache) {
  const DType wide{kDLComplex, 128};
  const DType byte{kDLUInt, 8};
  struct Large {
    DType from;
    DType to;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> source_strides;
    std::size_t from_line;
  };
  const std::vector<Large> all{
      {wide, wide, {1100, 1001}, {16016, 16}, 5},
      {wide, wide, {1100, 1001}, {16, 17600}, 0},
      {DType{kDLComplex, 64}, wide, {1400, 1001}, {8, 11200}, 16},
      {byte, byte, {8, 3, 1024, 352}, {1081344, 1, 1056, 3}, 0},
      {byte, byte, {8, 3, 1024, 352}, {1081344, 1, 1056, 3}, 5},
  };
  set_copy_threads(3);
  for (const Large& each : all) {
    std::vector<std::int64_t> strides(each.shape.size(), each.to.itemsize());
    for (std::size_t i = strides.size() - 1; i-- > 0;) {
      strides[i] = strides[i + 1] * each.shape[i + 1];
    }
    Side source{each.source_strides, {}, 0};
    Side target{strides, {}, 0};
    source.allocate(each.shape, each.from.itemsize());
    target.allocate(each.shape, each.to.itemsize());
    target.memory.resize(target.memory.size() + 128);
    const auto place = reinterpret_cast<std::uintptr_t>(target.memory.data());
    target.offset = (64 - place % 64) % 64 + each.from_line;
    fill(each.from, source.memory);
    check(job_of(each.from, each.to), each.shape, source, target);
    EXPECT_FALSE(HasFatalFailure()) << each.shape.size() << " from " << each.from_line;
  }
  set_copy_threads(0);
}

// Squares whose sides are powers of two and their neighbours: where tiles end.
TEST(Copy, Transposes) {
  for (const int bits : {8, 16, 32, 64, 128}) {
    const DType type = bits == 128 ? DType{kDLComplex, 128} : DType{kDLUInt, bits};
    const std::int64_t w = bits / 8;
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{{512, 512},
                                                                    {513, 300},
                                                                    {3, 4097},
                                                                    {4097, 3},
                                                                    {1023, 65},
                                                                    {16, 16},
                                                                    {7, 9},
                                                                    {130, 2},
                                                                    {2, 700},
                                                                    {4, 999}}) {
      for (const bool flags : {false, true}) {
        Side source{{w, shape[0] * w}, {}, 0};
        Side target{{shape[1] * w, w}, {}, 0};
        source.allocate(shape, w);
        target.allocate(shape, w);
        fill(type, source.memory);
        CopyJob job = job_of(type, type);
        job.negate = flags;
        check(job, shape, source, target);
        ASSERT_FALSE(HasFatalFailure()) << bits << ": " << shape[0] << " x " << shape[1];
      }
    }
  }
}

// Rows, pixels and channels, each forwards and backwards, as pixels and as planes on either side.
TEST(Copy, Pictures) {
  const auto strides_of = [](const std::vector<std::int64_t>& shape, std::int64_t width,
                             bool planes, unsigned backwards) {
    const std::int64_t pixel = planes ? width : shape[2] * width;
    std::vector<std::int64_t> strides{shape[1] * pixel, pixel,
                                      planes ? shape[0] * shape[1] * width : width};
    for (unsigned i = 0; i < 3; ++i) {
      strides[i] = (backwards >> i & 1U) != 0 ? -strides[i] : strides[i];
    }
    return strides;
  };
  for (const std::int64_t width : {1, 2, 4, 8}) {
    const DType type{kDLUInt, static_cast<int>(8 * width)};
    for (const std::int64_t channels : {2, 3, 4, 5, 7, 11}) {
      const std::vector<std::int64_t> shape{5, 37, channels};
      for (unsigned orders = 0; orders < 32; ++orders) {
        Side source{strides_of(shape, width, (orders & 8U) != 0, orders & 7U), {}, 0};
        Side target{strides_of(shape, width, (orders & 16U) != 0, 0), {}, 0};
        source.allocate(shape, width);
        target.allocate(shape, width);
        fill(type, source.memory);
        check(job_of(type, type), shape, source, target);
        ASSERT_FALSE(HasFatalFailure())
            << width << " bytes, " << channels << " channels, " << orders;
      }
    }
  }
}

TEST(Cast, EveryPair) {
  for (const auto& from : kNamedDTypes) {
    for (const auto& to : kNamedDTypes) {
      if (!can_cast(from.dtype, to.dtype) || from.dtype == to.dtype) {
        continue;
      }
      SCOPED_TRACE(::testing::Message() << from.name << " to " << to.name);
      const std::vector<std::int64_t> shape = {1500};
      Side source{{from.dtype.itemsize()}, {}, 0};
      Side target{{to.dtype.itemsize()}, {}, 0};
      source.allocate(shape, from.dtype.itemsize());
      target.allocate(shape, to.dtype.itemsize());
      fill(from.dtype, source.memory);
      const CopyJob job = job_of(from.dtype, to.dtype);
      check(job, shape, source, target);
      for (int round = 0; round < 4; ++round) {
        check_random_layout(random_flags(job), 400, 1 + round);
      }
      if (HasFatalFailure()) {
        return;
      }
    }
  }
}

template <class To, class From>
std::vector<To> cast_values(const std::vector<From>& values, DType from, DType to) {
  std::vector<To> result(values.size());
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t from_stride = sizeof(From);
  const std::int64_t to_stride = sizeof(To);
  CopyJob job = job_of(from, to);
  job.ndim = 1;
  job.shape = &count;
  job.source = values.data();
  job.source_strides_bytes = &from_stride;
  job.target = result.data();
  job.target_strides_bytes = &to_stride;
  copy_elements(job);
  return result;
}

TEST(Cast, FloatToIntegerAsNumPyOnX86) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {1.9F, -1.9F, 300.0F, -129.0F, 4294967296.0F + 512,
                                     3e9F, 1e19F, 2e19F,  -1e19F,  inf,
                                     -inf, NAN};
  EXPECT_EQ((cast_values<std::int8_t>(values, {kDLFloat, 32}, {kDLInt, 8})),
            (std::vector<std::int8_t>{1, -1, 44, 127, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ((cast_values<std::uint8_t>(values, {kDLFloat, 32}, {kDLUInt, 8})),
            (std::vector<std::uint8_t>{1, 255, 44, 127, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ((cast_values<std::int32_t>(values, {kDLFloat, 32}, {kDLInt, 32})),
            (std::vector<std::int32_t>{1, -1, 300, -129, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN,
                                       INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN}));
  EXPECT_EQ((cast_values<std::uint32_t>(values, {kDLFloat, 32}, {kDLUInt, 32})),
            (std::vector<std::uint32_t>{1, UINT32_MAX, 300, UINT32_MAX - 128, 512, 3000000000U, 0,
                                        0, 0, 0, 0, 0}));
  EXPECT_EQ((cast_values<std::int64_t>(values, {kDLFloat, 32}, {kDLInt, 64}).back()), INT64_MIN);
  const auto u64 = cast_values<std::uint64_t>(values, {kDLFloat, 32}, {kDLUInt, 64});
  EXPECT_EQ(u64[6], 9999999980506447872ULL);
  EXPECT_EQ(u64[7], 0U);
}

// Sums over the codes that ml_dtypes 0.6.0 makes of all bfloat16 values, NaN as they come.
TEST(Cast, BfloatToFloat8AsMlDtypes) {
  std::vector<std::uint16_t> all(65536);
  std::iota(all.begin(), all.end(), std::uint16_t{0});
  const std::map<int, std::uint64_t> sums = {
      {kDLFloat8_e3m4, 15763779973285568640ULL},
      {kDLFloat8_e4m3, 11829344472362875776ULL},
      {kDLFloat8_e4m3b11fnuz, 18385957952372437760ULL},
      {kDLFloat8_e4m3fn, 15348791080611594592ULL},
      {kDLFloat8_e4m3fnuz, 14605149697237611264ULL},
      {kDLFloat8_e5m2, 4485166766769504896ULL},
      {kDLFloat8_e5m2fnuz, 14488733188381943296ULL},
      {kDLFloat8_e8m0fnu, 13579504710448510602ULL},
  };
  for (const auto& [code, sum] : sums) {
    std::uint64_t hash = 0;
    for (const std::uint8_t value :
         cast_values<std::uint8_t>(all, {kDLBfloat, 16}, DType{code, 8})) {
      hash = hash * 1099511628211ULL + value + 1;
    }
    EXPECT_EQ(hash, sum) << code;
  }
}

TEST(Cast, Float8E8M0AsMlDtypes) {
  const auto f = [](std::uint32_t bits) { return std::bit_cast<float>(bits); };
  const std::vector<float> values = {
      0.0F,        -0.0F,         f(1),          f(0x400000),   f(0x400001), f(0x800000),
      f(0xbfffff), f(0xc00000),   1.0F,          1.49F,         1.5F,        3.0F,
      6.0F,        f(0x7f3fffff), f(0x7f400000), f(0x7f800000), -1.0F,       NAN};
  EXPECT_EQ((cast_values<std::uint8_t>(values, {kDLFloat, 32}, {kDLFloat8_e8m0fnu, 8})),
            (std::vector<std::uint8_t>{255, 255, 0, 0, 1, 1, 1, 2, 127, 127, 128, 129, 130, 254,
                                       255, 255, 255, 255}));
}

TEST(Cast, DoubleToFloat16RoundsOnce) {
  // A hair above the middle of 1 and its successor; as a float it would be the middle itself.
  const std::vector<double> values = {1 + std::ldexp(1, -11) + std::ldexp(1, -40),
                                      1 + std::ldexp(1, -11), 65519.999999, 65520.0, 1e-300};
  EXPECT_EQ((cast_values<std::uint16_t>(values, {kDLFloat, 64}, {kDLFloat, 16})),
            (std::vector<std::uint16_t>{0x3c01, 0x3c00, 0x7bff, 0x7c00, 0}));
}

TEST(Copy, EmptyAndScalar) {
  std::int32_t source = 7;
  std::int32_t target = 0;
  CopyJob job = job_of({kDLInt, 32}, {kDLInt, 32});
  job.source = &source;
  job.target = &target;
  copy_elements(job);
  EXPECT_EQ(target, 7);

  const std::array<std::int64_t, 2> shape = {INT64_MAX, 0};
  const std::array<std::int64_t, 2> strides = {INT64_MAX, INT64_MIN};
  job.ndim = 2;
  job.shape = shape.data();
  job.source_strides_bytes = strides.data();
  job.target_strides_bytes = strides.data();
  job.source = nullptr;
  job.target = nullptr;
  copy_elements(job);
}

TEST(Threads, CanBeChosen) {
  const int at_first = copy_threads();
  EXPECT_GE(at_first, 1);
  set_copy_threads(5);
  EXPECT_EQ(copy_threads(), 5);
  set_copy_threads(0);
  EXPECT_EQ(copy_threads(), at_first);
}

}  // namespace
}  // namespace dlbridge
