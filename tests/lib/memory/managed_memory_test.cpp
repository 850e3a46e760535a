// Memory of a ManagedTensor's own, and what can be said of memory without touching it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Versioned;
using ::testing::ElementsAre;
using ::testing::StrEq;
using ::testing::ThrowsMessage;

TEST(ManagedTensor, allocates_aligned_writable_memory_in_c_order) {
  const std::vector<std::int64_t> shape{3, 5};
  const ManagedTensor tensor = ManagedTensor::allocate({kDLFloat, 64}, shape);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data()) % 64, 0U);
  EXPECT_THAT(tensor.shape(), ElementsAre(3, 5));
  EXPECT_THAT(tensor.strides(), ElementsAre(5, 1));
  EXPECT_EQ(tensor.flags(), 0U);
  EXPECT_EQ(tensor.device(), Device{});
  static_cast<double*>(tensor.data())[14] = 1.0;  // the last one is there
}

TEST(ManagedTensor, allocates_an_address_also_for_no_elements) {
  const std::vector<std::int64_t> shape{3, 0};
  EXPECT_NE(ManagedTensor::allocate({kDLFloat, 32}, shape).data(), nullptr);
}

TEST(ManagedTensor, allocates_nothing_that_is_malformed) {
  const std::vector<std::int64_t> negative{3, -1};
  EXPECT_THAT(
      [&] {
        (void)ManagedTensor::allocate({kDLFloat, 32}, negative);
      },
      ThrowsMessage<MalformedTensor>(
          StrEq("cannot take this DLPack tensor in: dimension 1 has size -1")));
  const std::vector<std::int64_t> huge{std::numeric_limits<std::int64_t>::max()};
  EXPECT_THAT(
      [&] {
        (void)ManagedTensor::allocate({kDLFloat, 32}, huge);
      },
      ThrowsMessage<MalformedTensor>(
          StrEq("cannot take this DLPack tensor in: its size in bits overflows 64 bits")));
  const std::vector<std::int64_t> many(65, 1);
  EXPECT_THROW((void)ManagedTensor::allocate({kDLFloat, 32}, many), MalformedTensor);
  const std::vector<std::int64_t> fine{1};
  EXPECT_THROW((void)ManagedTensor::allocate({kDLFloat, 0}, fine), MalformedTensor);
}

TEST(ManagedTensor, drops_negative_strides_only_where_nobody_steps) {
  Versioned producer({1, 4});
  producer.strides = {-4, 1};
  producer.tensor().strides = producer.strides.data();
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  tensor.drop_negative_strides();
  EXPECT_THAT(tensor.strides(), ElementsAre(4, 1));

  Versioned reversed({4});
  reversed.strides = {-1};
  reversed.tensor().strides = reversed.strides.data();
  reversed.tensor().data = reversed.memory.data() + 3;
  ManagedTensor stepped = ManagedTensor::adopt(&reversed.managed);
  stepped.drop_negative_strides();
  EXPECT_THAT(stepped.strides(), ElementsAre(-1));
}

TEST(ManagedTensor, is_relabelled_and_reinterpreted_without_touching_memory) {
  Versioned producer;
  producer.tensor().device = {kDLCUDAHost, 0};
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  tensor.relabel(Device{});
  tensor.reinterpret({kDLUInt, 32});
  EXPECT_EQ(tensor.device(), Device{});
  EXPECT_EQ(tensor.dtype(), DType(kDLUInt, 32));
  EXPECT_EQ(tensor.data(), producer.memory.data());
}

}  // namespace
}  // namespace dlbridge
