#include "dlbridge/dtype.hpp"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

static_assert(DType(DLDataType{kDLFloat, 32, 1}) == DType(kDLFloat, 32));
static_assert(DType(kDLFloat, 32, 4).element_bits() == 128);
static_assert(DType(kDLFloat4_e2m1fn, 4).itemsize() == 1);
static_assert(!DType(kDLFloat4_e2m1fn, 4).whole_bytes());
static_assert(DType(kDLFloat4_e2m1fn, 4, 2).whole_bytes());
static_assert(!DType(kDLFloat6_e2m3fn, 6).whole_bytes());
static_assert(!DType(kDLFloat, 0).whole_bytes());
static_assert(DType(kDLBfloat, 16).is(kDLBfloat));
static_assert(DType(kDLComplex, 128).alignment() == 16);
static_assert(DType(kDLFloat, 32, 4).alignment() == 16);
static_assert(DType(kDLFloat, 32, 3).alignment() == 4);
static_assert(DType(kDLInt, 24).alignment() == 1);
static_assert(DType(kDLBool, 8).alignment() == 1);
static_assert(DType(kDLFloat4_e2m1fn, 4).alignment() == 1);
static_assert(DType(kDLFloat6_e2m3fn, 6).alignment() == 1);
static_assert(dtype_named("bfloat16") == DType(kDLBfloat, 16));
static_assert(!dtype_named("float31"));

// Whether it is a constant: what loses a bit is none.
template <int kCode, int kBits, int kLanes>
concept IsTriple = requires {
  typename std::bool_constant<(static_cast<void>(DType(kCode, kBits, kLanes)), true)>;
};
static_assert(IsTriple<255, 255, 65535>);
static_assert(!IsTriple<256, 8, 1> && !IsTriple<-1, 8, 1>);
static_assert(!IsTriple<kDLInt, 264, 1> && !IsTriple<kDLInt, 8, 65537>);

TEST(DType, loses_no_bit_of_what_it_is_made_of) {
  EXPECT_THROW((void)DType(kDLInt, 264), std::invalid_argument);
}

TEST(DType, has_every_code_of_dlpack_1_3) {
  std::set<int> codes;
  for (const auto& row : kNamedDTypes) {
    codes.insert(row.dtype.code);
    EXPECT_EQ(dtype_fault(row.dtype), "") << row.name;
  }
  for (int code = 0; code <= 17; ++code) {
    EXPECT_TRUE(codes.contains(code)) << code;
  }
  EXPECT_EQ(codes.size(), 18U);
}

TEST(DType, is_read_as_it_is_written) {
  for (const auto& row : kNamedDTypes) {
    EXPECT_EQ(to_string(row.dtype), row.name);
    EXPECT_EQ(dtype_named(row.name), row.dtype) << row.name;
    EXPECT_EQ(DType(row.dtype.dl()), row.dtype) << row.name;
  }
}

TEST(DType, without_a_name_is_written_in_dlpacks_terms) {
  EXPECT_EQ(to_string(DType(kDLFloat, 32, 4)), "float32x4");
  EXPECT_EQ(to_string(DType(kDLInt, 24)), "dtype(code=0, bits=24, lanes=1)");
  EXPECT_EQ(to_string(DType(99, 8)), "dtype(code=99, bits=8, lanes=1)");
  EXPECT_EQ(to_string(DType(99, 8, 2)), "dtype(code=99, bits=8, lanes=2)");
  EXPECT_EQ(to_string(DType(kDLFloat, 32, 0)), "dtype(code=2, bits=32, lanes=0)");
}

TEST(DType, has_a_fault_where_dlpack_does_not_allow_it) {
  EXPECT_EQ(dtype_fault({18, 8}), "DLPack 1.3 has no such type code");
  EXPECT_EQ(dtype_fault({255, 8}), "DLPack 1.3 has no such type code");
  EXPECT_EQ(dtype_fault({kDLInt, 0}), "its elements have no bits");
  EXPECT_EQ(dtype_fault({kDLInt, 8, 0}), "its elements have no lanes");
  for (int code = kDLFloat8_e3m4; code <= kDLFloat8_e8m0fnu; ++code) {
    EXPECT_EQ(dtype_fault({code, 16}), "a float8 has 8 bits");
    EXPECT_EQ(dtype_fault({code, 8, 2}), "");
  }
  EXPECT_EQ(dtype_fault({kDLFloat6_e2m3fn, 8}), "a float6 has 6 bits");
  EXPECT_EQ(dtype_fault({kDLFloat6_e3m2fn, 4}), "a float6 has 6 bits");
  EXPECT_EQ(dtype_fault({kDLFloat4_e2m1fn, 8}), "a float4 has 4 bits");
  EXPECT_EQ(dtype_fault({kDLInt, 24}), "");
}

TEST(DType, is_found_in_its_table_for_any_triple_whatever) {
  for (int code = 0; code < 256; ++code) {
    for (int bits = 0; bits < 256; ++bits) {
      for (const int lanes : {0, 1, 2, 65535}) {
        const DType dtype(code, bits, lanes);
        const int row = index_of(dtype);
        ASSERT_TRUE(row == -1 || kNamedDTypes[static_cast<std::size_t>(row)].dtype == dtype);
      }
    }
  }
}

TEST(DTypeSet, holds_what_it_was_made_of_and_nothing_else) {
  constexpr DTypeSet kSet = DTypeSet::of({"float32", "float4_e2m1fn_x2"});
  for (const auto& row : kNamedDTypes) {
    EXPECT_EQ(kSet.contains(row.dtype), row.name == "float32" || row.name == "float4_e2m1fn_x2")
        << row.name;
    EXPECT_FALSE(DTypeSet{}.contains(row.dtype));
    EXPECT_TRUE(DTypeSet::everything().contains(row.dtype));
  }
  static_assert((DTypeSet::of_name("int8") | DTypeSet::of_name("int16")) ==
                DTypeSet::of({"int16", "int8"}));
}

TEST(DTypeSet, of_everything_is_the_only_one_with_nameless_types) {
  EXPECT_TRUE(DTypeSet::everything().contains({kDLInt, 24}));
  EXPECT_FALSE(DTypeSet::of({"int8", "int16"}).contains({kDLInt, 24}));
}

TEST(DTypeMap, has_for_each_type_what_was_added_first) {
  constexpr auto kMap = [] {
    DTypeMap<int> map(-1);
    map.add({kDLInt, 64}, 7);
    map.add({kDLInt, 64}, 9);
    map.add({kDLFloat4_e2m1fn, 4, 2}, 45);
    return map;
  }();
  EXPECT_EQ(kMap[(DType{kDLInt, 64})], 7);
  EXPECT_EQ(kMap[(DType{kDLFloat4_e2m1fn, 4, 2})], 45);
  EXPECT_EQ(kMap[(DType{kDLFloat4_e2m1fn, 4})], -1);
  EXPECT_EQ(kMap[(DType{kDLInt, 24})], -1);
  static_assert(kMap.types() == DTypeSet::of({"int64", "float4_e2m1fn_x2"}));
}

}  // namespace
}  // namespace dlbridge
