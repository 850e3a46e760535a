// Casts of values that the type asked for cannot hold: what C++ callers are told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "dlbridge/carry.hpp"
#include "dlbridge/copy.hpp"
#include "dlbridge/error.hpp"
#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using cases::kHostOnly;
using ::testing::StrEq;

template <typename T>
ManagedTensor cast(const std::vector<T>& values, DType from, DType to, CastWarning* warning) {
  const auto count = static_cast<std::int64_t>(values.size());
  Source source;
  source.traits.library = &cases::kShelf;
  source.tensor.data = const_cast<T*>(values.data());
  source.tensor.device = Device{}.dl();
  source.tensor.dtype = from.dl();
  source.tensor.ndim = 1;
  source.tensor.shape = const_cast<std::int64_t*>(&count);
  const Leg leg{Who::kEngine, 1 << static_cast<int>(Step::kCast), to, Device{}};
  return carry_out(leg, source, warning);
}

TEST(Cast, an_integer_that_does_not_fit_is_refused_with_its_place_and_value) {
  const std::vector<std::int64_t> values{1, 300, -2};
  try {
    (void)cast(values, {kDLInt, 64}, {kDLUInt, 8}, nullptr);
    FAIL() << "it did not fit";
  } catch (const ValueOutOfRange& refused) {
    EXPECT_EQ(refused.met.place, "[1]");
    EXPECT_EQ(refused.met.value, "300");
    EXPECT_EQ(holder_of(refused.met), DType(kDLInt, 16));
    EXPECT_THAT(
        refused.what(),
        StrEq("cannot cast int64 to uint8 (x[1] is 300, which uint8 does not hold); use "
              "Request{.dtype = dtype_named(\"int16\")} to cast, which holds every element"));
    EXPECT_EQ(refused.fix, "Request{.dtype = dtype_named(\"int16\")} to cast");
  }
}

TEST(Cast, a_type_that_the_target_lacks_is_not_advised) {
  OutOfRange met{"[0]", "300", {kDLInt, 64}, {kDLInt, 8}, -2, 300};
  met.dtypes = DTypeSet::of({"int8", "uint16", "int32"});
  EXPECT_EQ(holder_of(met), DType(kDLInt, 32));
  met.dtypes = DTypeSet::of({"int8", "uint64"});
  EXPECT_EQ(holder_of(met), DType());
  const ConversionRefused refused = refusal(met);
  EXPECT_EQ(refused.fix, "");
  EXPECT_THAT(refused.what(),
              StrEq("cannot cast int64 to int8 (x[0] is 300, which int8 does not hold)"));
}

TEST(Cast, the_largest_of_64_bits_is_named_in_full) {
  const std::vector<std::uint64_t> values{0, UINT64_MAX};
  try {
    (void)cast(values, {kDLUInt, 64}, {kDLInt, 64}, nullptr);
    FAIL() << "it did not fit";
  } catch (const ConversionRefused& refused) {
    EXPECT_THAT(refused.reasons,
                ::testing::ElementsAre("x[1] is 18446744073709551615, which int64 does not hold"));
  }
}

TEST(Cast, floats_out_of_range_are_told_of) {
  const std::vector<double> values{1, std::nan(""), 2};
  CastWarning warning = CastWarning::kNone;
  (void)cast(values, {kDLFloat, 64}, {kDLInt, 32}, &warning);
  EXPECT_EQ(warning, CastWarning::kInvalid);
  (void)cast(values, {kDLFloat, 64}, {kDLInt, 32}, nullptr);

  warning = CastWarning::kNone;
  (void)cast(values, {kDLFloat, 64}, {kDLFloat, 32}, &warning);
  EXPECT_EQ(warning, CastWarning::kNone);
  (void)cast(std::vector<double>{1e300}, {kDLFloat, 64}, {kDLFloat, 32}, &warning);
  EXPECT_EQ(warning, CastWarning::kOverflow);
}

// What always_fits() says is what copies say, at the bounds of either type.
TEST(Cast, a_pair_that_always_fits_meets_nothing) {
  const std::array<DType, 8> integers = {DType{kDLInt, 8}, {kDLInt, 16}, {kDLInt, 32},
                                         {kDLInt, 64},     {kDLUInt, 8}, {kDLUInt, 16},
                                         {kDLUInt, 32},    {kDLUInt, 64}};
  for (const DType from : integers) {
    // Every byte set, and only the top bit: the bounds, whether it is signed or not.
    std::vector<std::uint64_t> words{0,
                                     UINT64_MAX,
                                     std::uint64_t{1} << 63,
                                     UINT64_MAX >> 1,
                                     0x8080808080808080U,
                                     0x7f7f7f7f7f7f7f7fU};
    for (const DType to : integers) {
      const std::int64_t count = static_cast<std::int64_t>(words.size()) * 8 / from.itemsize();
      const std::int64_t from_step = from.itemsize();
      const std::int64_t to_step = to.itemsize();
      std::vector<std::byte> target(static_cast<std::size_t>(count * to_step));
      CopyJob job;
      job.ndim = 1;
      job.shape = &count;
      job.source = words.data();
      job.source_strides_bytes = &from_step;
      job.target = target.data();
      job.target_strides_bytes = &to_step;
      job.source_dtype = from;
      job.target_dtype = to;
      EXPECT_EQ(copy_elements(job), always_fits(from, to)) << to_string(from) << to_string(to);
    }
  }
}

}  // namespace
}  // namespace dlbridge
