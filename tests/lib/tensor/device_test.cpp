#include "dlbridge/device.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

static_assert(Device{} == Device(kDLCPU, 0));
static_assert(Device(DLDevice{kDLCUDA, 3}) == Device(kDLCUDA, 3));
static_assert(Device(kDLCUDA, 3).dl().device_id == 3);

struct Known {
  std::int32_t type;
  std::string name;
  bool host_accessible;
  bool addressable;
};

const std::vector<Known>& known() {
  static const std::vector<Known> all = {
      {1, "cpu", true, true},           {2, "cuda", false, true},
      {3, "cuda_host", true, true},     {4, "opencl", false, false},
      {7, "vulkan", false, false},      {8, "metal", false, false},
      {9, "vpi", false, true},          {10, "rocm", false, true},
      {11, "rocm_host", true, true},    {12, "ext_dev", false, true},
      {13, "cuda_managed", true, true}, {14, "oneapi", false, true},
      {15, "webgpu", false, false},     {16, "hexagon", false, true},
      {17, "maia", false, true},        {18, "trn", false, true},
      {19, "tpu", false, false},        {20, "tpu_host", false, false},
      {21, "ascend", false, false},
  };
  return all;
}

TEST(Device, has_a_name_for_every_type_of_dlpack_and_for_no_other) {
  std::size_t named = 0;
  for (std::int32_t type = -2; type < 40; ++type) {
    named += device_named(device_type_name(type)) ? 1 : 0;
  }
  EXPECT_EQ(named, known().size());
}

TEST(Device, passes_by_its_number_where_it_has_no_name) {
  for (const std::int32_t type : {1, 5, 19, 22, 31, 32, 99, 1'000'000}) {
    EXPECT_TRUE(is_device_type(type)) << type;
    EXPECT_TRUE(DeviceSet::everything().contains(type)) << type;
    EXPECT_EQ(DeviceSet::host().contains(type), type == kDLCPU) << type;
  }
  EXPECT_FALSE(is_device_type(0));
  EXPECT_FALSE(is_device_type(-1));
  EXPECT_FALSE(Device(22, 0).addressable());
}

TEST(Device, knows_what_the_processor_reads_and_what_has_addresses) {
  for (const auto& device : known()) {
    EXPECT_EQ(Device(device.type, 0).host_accessible(), device.host_accessible) << device.name;
    EXPECT_EQ(Device(device.type, 0).addressable(), device.addressable) << device.name;
  }
}

TEST(Device, is_read_as_it_is_written) {
  for (const auto& device : known()) {
    EXPECT_EQ(to_string(Device(device.type, 1)), device.name + ":1");
    EXPECT_EQ(device_named(device.name + ":1"), Device(device.type, 1));
    EXPECT_EQ(device_named(device.name), Device(device.type, 0));
  }
  EXPECT_EQ(to_string(Device{}), "cpu");
  EXPECT_EQ(to_string(Device(kDLCUDA, 0)), "cuda:0");
  EXPECT_EQ(to_string(Device(99, 0)), "device(99):0");
}

TEST(Device, is_nothing_for_a_text_that_names_none) {
  for (const char* text : {"", ":", ":0", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:1x",
                           "cuda:1:2", "cuda: 1", "cuda:99999999999", " cpu", "device(99):0"}) {
    EXPECT_FALSE(device_named(text)) << text;
  }
}

std::string streams_of(std::int32_t type) {
  const auto numbers = fixed_stream_numbers(type);
  if (!numbers) {
    return "none";
  }
  std::string named = std::to_string(numbers->number_of(Stream{})) + ":";
  for (std::int64_t number = -2; number < 5; ++number) {
    const auto stream = numbers->stream_of(number);
    named += !stream ? " -" : *stream == Stream{} ? " default" : " " + std::to_string(number);
  }
  return named;
}

// DLPack's Python page, "stream".
TEST(Device, numbers_its_streams_where_dlpack_says_how) {
  EXPECT_EQ(streams_of(kDLCUDA), "1: - - - default 2 3 4");
  EXPECT_EQ(streams_of(kDLCUDAManaged), "1: - - - default 2 3 4");
  EXPECT_EQ(streams_of(kDLROCM), "0: - - default - - 3 4");
  for (const std::int32_t type : {kDLCPU, kDLCUDAHost, kDLROCMHost, kDLExtDev, kDLOneAPI}) {
    EXPECT_EQ(streams_of(type), "none");
  }
  EXPECT_EQ(streams_of(99), "none");
}

TEST(StreamNumbers, are_handles_both_ways) {
  int owner = 0;
  const StreamNumbers numbers;
  const Stream stream{&owner};
  EXPECT_EQ(numbers.number_of(stream), reinterpret_cast<std::uintptr_t>(&owner));
  EXPECT_EQ(numbers.stream_of(static_cast<std::int64_t>(numbers.number_of(stream))), stream);
  EXPECT_EQ(numbers.stream_of(0), Stream{});
  EXPECT_EQ(numbers.stream_of(1), Stream{});
  EXPECT_EQ(numbers.stream_of(-1), std::nullopt);
}

TEST(DeviceSet, holds_what_it_was_made_of_and_nothing_else) {
  constexpr DeviceSet kSet = DeviceSet::of({kDLCPU, kDLTrn});
  for (std::int32_t type = -40; type < 80; ++type) {
    EXPECT_EQ(kSet.contains(type), type == kDLCPU || type == kDLTrn) << type;
    EXPECT_FALSE(DeviceSet{}.contains(type));
  }
}

TEST(DeviceSet, is_made_of_no_type_that_it_has_no_room_for) {
  for (const std::int32_t type : {-1, 32, 99}) {
    EXPECT_THROW((void)DeviceSet::of({type}), std::invalid_argument) << type;
  }
}

TEST(DeviceSet, of_the_host_is_what_the_processor_reads) {
  for (const auto& device : known()) {
    EXPECT_EQ(DeviceSet::host().contains(device.type), device.host_accessible) << device.name;
    EXPECT_TRUE(DeviceSet::everything().contains(device.type)) << device.name;
  }
}

}  // namespace
}  // namespace dlbridge
