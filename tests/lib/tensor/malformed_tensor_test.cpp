// What is refused where managed tensors are taken in. Every fault goes through every door; every
// door counts the deleter.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Legacy;
using doubles::Versioned;
using ::testing::ElementsAre;
using ::testing::StrEq;
using ::testing::ThrowsMessage;

constexpr std::int64_t kHuge = std::int64_t{1} << 62;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

struct Fault {
  std::string name;
  void (*damage)(DLTensor& tensor);  // of two dimensions, {2, 3} of float32
  std::string text;
};

std::vector<Fault> faults() {
  return {
      {"negative_ndim", [](DLTensor& t) { t.ndim = -1; }, "it has -1 dimensions"},
      {"too_many_dimensions", [](DLTensor& t) { t.ndim = 65; },
       "it has 65 dimensions, and at most 64 are supported"},
      {"most_dimensions_of_all",
       [](DLTensor& t) { t.ndim = std::numeric_limits<std::int32_t>::max(); },
       "it has 2147483647 dimensions, and at most 64 are supported"},
      {"null_shape", [](DLTensor& t) { t.shape = nullptr; }, "its shape is NULL with 2 dimensions"},
      {"negative_size", [](DLTensor& t) { t.shape[1] = -3; }, "dimension 1 has size -3"},
      {"negative_size_beside_an_empty_dimension",
       [](DLTensor& t) {
         t.shape[0] = 0;
         t.shape[1] = -1;
       },
       "dimension 1 has size -1"},
      {"null_data", [](DLTensor& t) { t.data = nullptr; },
       "its data is NULL though it has 6 elements (a fake, meta or freed tensor exports itself "
       "so)"},
      {"null_data_with_byte_offset",
       [](DLTensor& t) {
         t.data = nullptr;
         t.byte_offset = 64;
       },
       "its data is NULL though it has 6 elements (a fake, meta or freed tensor exports itself "
       "so)"},
      {"null_data_on_a_device",
       [](DLTensor& t) {
         t.data = nullptr;
         t.device = {kDLCUDA, 0};
       },
       "its data is NULL though it has 6 elements (a fake, meta or freed tensor exports itself "
       "so)"},
      {"count_overflows",
       [](DLTensor& t) {
         t.shape[0] = kHuge;
         t.shape[1] = 4;
         t.strides = nullptr;
       },
       "its size overflows 64 bits"},
      {"count_overflows_with_strides_of_zero",
       [](DLTensor& t) {
         t.shape[0] = kHuge;
         t.shape[1] = 4;
         t.strides[0] = t.strides[1] = 0;
       },
       "its size overflows 64 bits"},
      {"reach_overflows", [](DLTensor& t) { t.strides[1] = kMost; }, "its size overflows 64 bits"},
      {"reach_overflows_in_sum",
       [](DLTensor& t) {
         t.shape[1] = 2;
         t.strides[0] = t.strides[1] = kHuge + 1;
       },
       "its size overflows 64 bits"},
      {"reach_overflows_downwards",
       [](DLTensor& t) {
         t.shape[1] = 2;
         t.strides[0] = t.strides[1] = kLeast;
       },
       "its size overflows 64 bits"},
      {"span_overflows",
       [](DLTensor& t) {
         t.shape[1] = 2;
         t.strides[0] = kLeast;
         t.strides[1] = kMost;
       },
       "its size in bits overflows 64 bits"},
      {"bytes_overflow",
       [](DLTensor& t) {
         t.shape[0] = kHuge;
         t.shape[1] = 1;
         t.strides[0] = t.strides[1] = 1;
       },
       "its size in bits overflows 64 bits"},
      {"bytes_of_a_broadcast_overflow",
       [](DLTensor& t) {
         t.shape[0] = kHuge;
         t.shape[1] = 1;
         t.strides[0] = t.strides[1] = 0;
       },
       "its size in bits overflows 64 bits"},
      {"byte_offset_leaves_the_address_space",
       [](DLTensor& t) { t.byte_offset = std::numeric_limits<std::uint64_t>::max(); },
       "its byte offset of 18446744073709551615 leaves the address space"},
      {"strides_leave_the_address_space_upwards",
       [](DLTensor& t) { t.data = reinterpret_cast<void*>(kMost - 8); },
       "its strides leave the address space"},
      {"strides_leave_the_address_space_downwards",
       [](DLTensor& t) { t.strides[0] = -(std::int64_t{1} << 57); },
       "its strides leave the address space"},
      {"unknown_type_code",
       [](DLTensor& t) {
         t.dtype = {18, 32, 1};
       },
       "its type is dtype(code=18, bits=32, lanes=1): DLPack 1.3 has no such type code"},
      {"last_type_code_of_all",
       [](DLTensor& t) {
         t.dtype = {255, 8, 1};
       },
       "its type is dtype(code=255, bits=8, lanes=1): DLPack 1.3 has no such type code"},
      {"no_bits",
       [](DLTensor& t) {
         t.dtype = {kDLFloat, 0, 1};
       },
       "its type is dtype(code=2, bits=0, lanes=1): its elements have no bits"},
      {"no_lanes",
       [](DLTensor& t) {
         t.dtype = {kDLFloat, 32, 0};
       },
       "its type is dtype(code=2, bits=32, lanes=0): its elements have no lanes"},
      {"float8_of_sixteen_bits",
       [](DLTensor& t) {
         t.dtype = {kDLFloat8_e4m3fn, 16, 1};
       },
       "its type is dtype(code=10, bits=16, lanes=1): a float8 has 8 bits"},
      {"float6_of_eight_bits",
       [](DLTensor& t) {
         t.dtype = {kDLFloat6_e2m3fn, 8, 1};
       },
       "its type is dtype(code=15, bits=8, lanes=1): a float6 has 6 bits"},
      {"other_float6_of_eight_bits",
       [](DLTensor& t) {
         t.dtype = {kDLFloat6_e3m2fn, 8, 1};
       },
       "its type is dtype(code=16, bits=8, lanes=1): a float6 has 6 bits"},
      {"float4_of_eight_bits",
       [](DLTensor& t) {
         t.dtype = {kDLFloat4_e2m1fn, 8, 1};
       },
       "its type is dtype(code=17, bits=8, lanes=1): a float4 has 4 bits"},
      {"device_type_zero",
       [](DLTensor& t) {
         t.device = {static_cast<DLDeviceType>(0), 0};
       },
       "its device type is 0, and they begin at 1"},
      {"device_type_negative",
       [](DLTensor& t) {
         t.device = {static_cast<DLDeviceType>(-1), 0};
       },
       "its device type is -1, and they begin at 1"},
  };
}

class Malformed : public ::testing::TestWithParam<Fault> {
 protected:
  [[nodiscard]] auto refusal() const {
    return ThrowsMessage<MalformedTensor>(
        StrEq("cannot take this DLPack tensor in: " + GetParam().text));
  }
};

TEST_P(Malformed, is_refused_by_adopt_and_its_deleter_runs_once) {
  Versioned producer;
  GetParam().damage(producer.tensor());
  EXPECT_THAT([&] { (void)ManagedTensor::adopt(&producer.managed); }, refusal());
  EXPECT_EQ(producer.deleted(), 1);
  EXPECT_EQ(live_managed_tensors(), 0);
}

TEST_P(Malformed, is_refused_by_legacy_adopt_and_its_deleter_runs_once) {
  Legacy producer;
  GetParam().damage(producer.tensor());
  EXPECT_THAT([&] { (void)ManagedTensor::adopt(&producer.managed, true); }, refusal());
  EXPECT_EQ(producer.deleted(), 1);
  EXPECT_EQ(live_managed_tensors(), 0);
}

TEST_P(Malformed, is_refused_by_own_and_its_lease_given_back_once) {
  Versioned producer;
  GetParam().damage(producer.tensor());
  EXPECT_THAT([&] { (void)ManagedTensor::own(producer.tensor(), 0, producer.lease()); }, refusal());
  EXPECT_EQ(producer.deleted(), 1);
  EXPECT_EQ(live_managed_tensors(), 0);
}

TEST_P(Malformed, is_left_with_its_caller_by_adopt_or_leave) {
  Versioned producer;
  GetParam().damage(producer.tensor());
  EXPECT_THAT([&] { (void)ManagedTensor::adopt_or_leave(&producer.managed); }, refusal());
  EXPECT_EQ(producer.deleted(), 0);
  EXPECT_EQ(live_managed_tensors(), 0);
}

TEST_P(Malformed, is_refused_also_without_a_deleter) {
  Versioned producer;
  producer.managed.deleter = nullptr;
  GetParam().damage(producer.tensor());
  EXPECT_THAT([&] { (void)ManagedTensor::adopt(&producer.managed); }, refusal());
  EXPECT_EQ(producer.deleted(), 0);
}

INSTANTIATE_TEST_SUITE_P(Tensor, Malformed, ::testing::ValuesIn(faults()),
                         [](const auto& test) { return test.param.name; });

TEST(MalformedTensor, carries_the_fault_as_its_reason_and_no_fix) {
  Versioned producer;
  producer.tensor().ndim = -1;
  try {
    (void)ManagedTensor::adopt(&producer.managed);
    FAIL() << "-1 dimensions were taken";
  } catch (const ConversionRefused& refused) {
    EXPECT_THAT(refused.reasons, ElementsAre("it has -1 dimensions"));
    EXPECT_EQ(refused.fix, "");
  }
}

TEST(MalformedTensor, null_pointers_are_refused_by_every_door) {
  const auto refusal = ThrowsMessage<MalformedTensor>(
      StrEq("cannot take this DLPack tensor in: the pointer to it is NULL"));
  EXPECT_THAT([] { (void)ManagedTensor::adopt(static_cast<DLManagedTensorVersioned*>(nullptr)); },
              refusal);
  EXPECT_THAT([] { (void)ManagedTensor::adopt_or_leave(nullptr); }, refusal);
  EXPECT_THAT([] { (void)ManagedTensor::adopt(static_cast<DLManagedTensor*>(nullptr), true); },
              refusal);
}

// A managed tensor of another major version: behind `flags` there is no memory at all.
class OtherMajor {
 public:
  explicit OtherMajor(std::uint32_t major)
      : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))),
        pages_(static_cast<std::byte*>(
            mmap(nullptr, 2 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    EXPECT_EQ(mprotect(pages_ + page_, page_, PROT_NONE), 0);
    constexpr std::size_t kKnown = offsetof(DLManagedTensorVersioned, dl_tensor);
    managed = reinterpret_cast<DLManagedTensorVersioned*>(pages_ + page_ - kKnown);
    managed->version = {major, 0};
    managed->flags = ~std::uint64_t{0};
    managed->manager_ctx = this;
    managed->deleter = [](DLManagedTensorVersioned* self) {
      ++static_cast<OtherMajor*>(self->manager_ctx)->deleted;
    };
  }
  OtherMajor(const OtherMajor&) = delete;
  OtherMajor& operator=(const OtherMajor&) = delete;
  ~OtherMajor() { munmap(pages_, 2 * page_); }

  DLManagedTensorVersioned* managed;
  int deleted = 0;

 private:
  std::size_t page_;
  std::byte* pages_;
};

TEST(MalformedTensor, of_major_version_two_is_not_read_past_its_flags) {
  OtherMajor two(2);
  EXPECT_THAT([&] { (void)ManagedTensor::adopt(two.managed); },
              ThrowsMessage<MalformedTensor>(
                  StrEq("cannot take this DLPack tensor in: it is of DLPack version 2.0, and only "
                        "major version 1 is understood")));
  EXPECT_EQ(two.deleted, 1);
}

TEST(MalformedTensor, of_major_version_zero_is_refused_too) {
  OtherMajor zero(0);
  EXPECT_THROW((void)ManagedTensor::adopt(zero.managed), MalformedTensor);
  EXPECT_EQ(zero.deleted, 1);
}

TEST(MalformedTensor, of_another_major_version_is_left_by_adopt_or_leave) {
  OtherMajor two(2);
  EXPECT_THROW((void)ManagedTensor::adopt_or_leave(two.managed), MalformedTensor);
  EXPECT_EQ(two.deleted, 0);
}

}  // namespace
}  // namespace dlbridge
