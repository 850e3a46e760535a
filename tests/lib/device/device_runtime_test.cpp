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

TEST(device_runtimes, say_why_they_are_missing) {
  EXPECT_EQ(runtime_absence(kDLTrn), "");
  set_runtime_absence(kDLTrn, "it is another machine's");
  EXPECT_EQ(runtime_absence(kDLTrn), "it is another machine's");
  set_runtime_absence(kDLTrn, nullptr);
  EXPECT_EQ(runtime_absence(kDLTrn), "");
  EXPECT_EQ(runtime_absence(99), "");
  EXPECT_THROW(set_runtime_absence(99, "there is no such type"), std::out_of_range);
}

TEST(device_runtimes, there_is_none_until_one_is_registered) {
  EXPECT_EQ(device_runtime(kDLTrn), nullptr);
}

}  // namespace
}  // namespace dlbridge
