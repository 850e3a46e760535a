// What is only unusual in a managed tensor, and has to be taken in.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "dlbridge/convert.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Versioned;
using ::testing::Each;
using ::testing::ElementsAre;

constexpr std::int64_t kHuge = std::int64_t{1} << 62;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

TEST(UnusualTensor, of_a_newer_minor_version_is_taken) {
  Versioned producer;
  producer.managed.version = {1, 99};
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_THAT(tensor.shape(), ElementsAre(2, 3));
}

TEST(UnusualTensor, of_sixty_four_dimensions_is_taken) {
  Versioned producer(std::vector<std::int64_t>(64, 1));
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_EQ(tensor.ndim(), 64);
  EXPECT_THAT(tensor.shape(), Each(1));
}

TEST(UnusualTensor, of_no_dimensions_may_have_null_for_both_arrays) {
  Versioned producer(std::vector<std::int64_t>{});
  producer.tensor().shape = nullptr;
  producer.tensor().strides = nullptr;
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_EQ(tensor.ndim(), 0);
  EXPECT_EQ(element_count(tensor.tensor()), 1);
  EXPECT_TRUE(is_c_contiguous(tensor.tensor()));
}

TEST(UnusualTensor, of_no_elements_may_have_null_for_data) {
  Versioned producer({3, 0, 2});
  producer.tensor().data = nullptr;
  producer.tensor().byte_offset = 16;  // nothing is added to NULL
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_EQ(tensor.data(), nullptr);
  EXPECT_EQ(element_count(tensor.tensor()), 0);
  EXPECT_EQ(byte_count(tensor.tensor()), 0);
}

TEST(UnusualTensor, of_no_elements_may_have_any_strides) {
  Versioned producer({0, 3});
  producer.strides = {kMost, kLeast};
  producer.tensor().strides = producer.strides.data();
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_TRUE(is_c_contiguous(tensor.tensor()));
}

TEST(UnusualTensor, of_no_elements_shares_none) {
  for (const std::array<std::int64_t, 3>& shape :
       {std::array<std::int64_t, 3>{2, 0, 3}, {0, 2, 3}, {2, 3, 0}}) {
    std::array<std::int64_t, 3> sizes = shape;
    std::array<std::int64_t, 3> strides{0, 0, 0};
    DLTensor tensor{};
    tensor.ndim = 3;
    tensor.shape = sizes.data();
    tensor.strides = strides.data();
    EXPECT_FALSE(overlaps_itself(tensor));
    std::replace(sizes.begin(), sizes.end(), 0, 1);
    EXPECT_TRUE(overlaps_itself(tensor));
  }
}

// The product of the other sizes does not fit 64 bits, and nothing needs it to.
TEST(UnusualTensor, of_no_elements_may_have_any_other_sizes) {
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{0, kHuge, kHuge}, {kHuge, kHuge, 0}, {kHuge, 0, kHuge}}) {
    Versioned producer({1, 1, 1});
    producer.shape = shape;
    producer.tensor().shape = producer.shape.data();
    producer.tensor().strides = nullptr;
    ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
    EXPECT_EQ(element_count(tensor.tensor()), 0);
    EXPECT_EQ(byte_count(tensor.tensor()), 0);
    EXPECT_TRUE(is_c_contiguous(tensor.tensor()));
    tensor.drop_negative_strides();
    EXPECT_EQ(element_count(ManagedTensor::allocate({kDLFloat, 32}, shape).tensor()), 0);
  }
}

TEST(UnusualTensor, of_negative_strides_is_taken) {
  Versioned producer({4});
  producer.strides = {-1};
  producer.tensor().strides = producer.strides.data();
  producer.tensor().byte_offset = 12;
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_EQ(static_cast<float*>(tensor.data())[-3], 0.0F);
}

TEST(UnusualTensor, of_every_known_type_is_taken) {
  for (const auto& row : kNamedDTypes) {
    SCOPED_TRACE(row.name);
    Versioned producer;
    producer.tensor().dtype = row.dtype.dl();
    EXPECT_EQ(ManagedTensor::adopt(&producer.managed).dtype(), row.dtype);
    EXPECT_EQ(producer.deleted(), 1);
  }
}

TEST(UnusualTensor, of_every_known_device_is_taken) {
  for (const int type : {1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}) {
    SCOPED_TRACE(type);
    Versioned producer;
    producer.tensor().device = {static_cast<DLDeviceType>(type), 1};
    EXPECT_EQ(ManagedTensor::adopt(&producer.managed).device(), Device(type, 1));
    EXPECT_EQ(producer.deleted(), 1);
  }
}

TEST(UnusualTensor, packed_below_a_byte_counts_its_bits) {
  DLTensor tensor{};
  std::array<std::int64_t, 1> shape{3};
  tensor.ndim = 1;
  tensor.shape = shape.data();
  tensor.dtype = DType{kDLFloat4_e2m1fn, 4}.dl();
  EXPECT_EQ(byte_count(tensor), 2);
  tensor.dtype = DType{kDLFloat6_e2m3fn, 6}.dl();
  EXPECT_EQ(byte_count(tensor), 3);
  tensor.dtype = DType{kDLFloat4_e2m1fn, 4, 2}.dl();
  EXPECT_EQ(byte_count(tensor), 3);
}

TEST(UnusualTensor, of_as_many_bits_as_can_be_counted_is_taken) {
  Versioned producer({kMost});
  producer.tensor().dtype = DType{kDLUInt, 1}.dl();
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_EQ(byte_count(tensor.tensor()), std::int64_t{1} << 60);
  const Library library{.name = "elsewhere", .object = "elsewhere.Tensor"};
  Source source;
  describe(tensor, library, source);
  EXPECT_EQ(plan(source, managed_tensor_capabilities(), Policy::snapshot()).bytes_copied,
            std::int64_t{1} << 60);
}

TEST(UnusualTensor, of_size_one_dimensions_is_contiguous_whatever_their_strides) {
  DLTensor tensor{};
  std::array<std::int64_t, 3> shape{1, 4, 1};
  std::array<std::int64_t, 3> strides{77, 1, 0};
  tensor.ndim = 3;
  tensor.shape = shape.data();
  tensor.strides = strides.data();
  EXPECT_TRUE(is_c_contiguous(tensor));
  strides[1] = 2;
  EXPECT_FALSE(is_c_contiguous(tensor));
}

}  // namespace
}  // namespace dlbridge
