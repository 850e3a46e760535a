#include "dlbridge/device_runtime.hpp"

#include <gtest/gtest.h>

namespace dlbridge {
namespace {

TEST(device_runtimes, there_is_none_for_types_that_dlpack_lacks) {
  EXPECT_EQ(device_runtime(-1), nullptr);
  EXPECT_EQ(device_runtime(99), nullptr);
  EXPECT_THROW(set_device_runtime(99, nullptr), std::out_of_range);
  EXPECT_THROW(set_device_runtime(0, nullptr), std::out_of_range);
}

TEST(device_runtimes, there_is_none_until_one_is_registered) {
  EXPECT_EQ(device_runtime(kDLTrn), nullptr);
}

}  // namespace
}  // namespace dlbridge
