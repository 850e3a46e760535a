// DLPack's rules, by their numbers in dlbridge.testing, asked of every ManagedTensor in C++ however
// it was made, and of every way to take one in. What a rule says of capsules, streams and exchange
// tables is asked in Python (tests/python/testing/test_rules.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "dlbridge/carry.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/error.hpp"
#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using doubles::Legacy;
using doubles::Versioned;
using ::testing::ElementsAre;

constexpr Library kElsewhere{.name = "elsewhere", .object = "elsewhere.Tensor"};

// --- as a producer -------------------------------------------------------------------------------

struct Making {
  std::string name;
  std::function<ManagedTensor(Versioned&, Legacy&)> make;
  bool ends_lease;  // of the versioned double
};

void PrintTo(const Making& making, std::ostream* out) {
  *out << making.name;
}

ManagedTensor copied(const ManagedTensor& tensor) {
  Source source;
  describe(tensor, kElsewhere, source);
  return carry_out(plan(source, cases::kHostOnly, Policy::snapshot()), source);
}

std::vector<Making> makings() {
  return {
      {"allocated",
       [](Versioned&, Legacy&) {
         return ManagedTensor::allocate({kDLFloat, 32}, std::array<std::int64_t, 2>{2, 3});
       },
       false},
      {"owned",
       [](Versioned& producer, Legacy&) {
         return ManagedTensor::own(producer.tensor(), 0, producer.lease());
       },
       true},
      {"adopted",
       [](Versioned& producer, Legacy&) { return ManagedTensor::adopt(&producer.managed); }, true},
      {"adopted_without_strides",
       [](Versioned& producer, Legacy&) {
         producer.tensor().strides = nullptr;
         return ManagedTensor::adopt(&producer.managed);
       },
       true},
      {"adopted_legacy",
       [](Versioned&, Legacy& legacy) { return ManagedTensor::adopt(&legacy.managed, true); },
       false},
      {"shared",
       [](Versioned& producer, Legacy&) { return ManagedTensor::adopt(&producer.managed).share(); },
       true},
      {"copied",
       [](Versioned& producer, Legacy&) { return copied(ManagedTensor::adopt(&producer.managed)); },
       true},
      {"taken_back",
       [](Versioned& producer, Legacy&) {
         return ManagedTensor::adopt(ManagedTensor::adopt(&producer.managed).release());
       },
       true},
  };
}

class EveryManagedTensor : public ::testing::TestWithParam<Making> {
 protected:
  ManagedTensor tensor() { return GetParam().make(producer, legacy); }
  Versioned producer;
  Legacy legacy;
};

TEST_P(EveryManagedTensor, rule_02_leaves_as_a_legacy_struct_only_where_it_may_be_written_to) {
  ManagedTensor first = tensor();
  DLManagedTensor* left = first.release_legacy();
  EXPECT_THAT(std::vector(left->dl_tensor.shape, left->dl_tensor.shape + 2), ElementsAre(2, 3));
  left->deleter(left);
  ManagedTensor other = ManagedTensor::allocate({kDLFloat, 32}, std::array<std::int64_t, 1>{3});
  other.mark_read_only();
  EXPECT_THROW((void)other.release_legacy(), ConversionRefused);
}

TEST_P(EveryManagedTensor, rule_03_is_of_our_newest_version) {
  DLManagedTensorVersioned* left = tensor().release();
  EXPECT_EQ(left->version.major, 1U);
  EXPECT_EQ(left->version.minor, 3U);
  left->deleter(left);
}

TEST_P(EveryManagedTensor, rule_04_has_strides) {
  const ManagedTensor made = tensor();
  EXPECT_THAT(made.strides(), ElementsAre(3, 1));
}

TEST_P(EveryManagedTensor, rule_08_says_that_it_is_a_copy_exactly_when_it_is_one) {
  const ManagedTensor made = tensor();
  const bool copy = (made.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0;
  EXPECT_EQ(copy, GetParam().name == "copied");
  if (copy) {
    EXPECT_NE(made.data(), producer.memory.data());
  }
}

TEST_P(EveryManagedTensor, rule_11_ends_on_any_thread_once_and_owns_its_dimensions_until_then) {
  DLManagedTensorVersioned* left = tensor().release();
  EXPECT_NE(left->dl_tensor.shape, producer.shape.data());
  EXPECT_NE(left->dl_tensor.strides, producer.strides.data());
  std::thread([left] { left->deleter(left); }).join();
  EXPECT_EQ(producer.deleted(), GetParam().ends_lease ? 1 : 0);
}

TEST_P(EveryManagedTensor, rule_14_on_the_host_has_device_0) {
  EXPECT_EQ(tensor().device(), Device(kDLCPU, 0));
}

TEST_P(EveryManagedTensor, rule_20_is_addressed_without_an_offset) {
  producer.tensor().byte_offset = 4;
  producer.tensor().data = reinterpret_cast<char*>(producer.memory.data()) - 4;
  const ManagedTensor made = tensor();
  EXPECT_EQ(made.tensor().byte_offset, 0U);
  if (GetParam().ends_lease && GetParam().name != "copied") {
    EXPECT_EQ(made.data(), producer.memory.data());
  }
}

INSTANTIATE_TEST_SUITE_P(Made, EveryManagedTensor, ::testing::ValuesIn(makings()),
                         [](const auto& test) { return test.param.name; });

TEST(AnEmptyManagedTensor, rule_05_leaves_without_an_address) {
  ManagedTensor empty = ManagedTensor::allocate({kDLFloat, 32}, std::array<std::int64_t, 2>{0, 3});
  EXPECT_NE(empty.data(), nullptr);
  empty.drop_address_if_empty();
  EXPECT_EQ(empty.data(), nullptr);
  ManagedTensor full = ManagedTensor::allocate({kDLFloat, 32}, std::array<std::int64_t, 2>{1, 3});
  full.drop_address_if_empty();
  EXPECT_NE(full.data(), nullptr);
}

// --- as a consumer -------------------------------------------------------------------------------

// Takes a struct in, by each way there is; what is refused has ended its lease, or stays the
// caller's to end.
struct Taking {
  std::string name;
  void (*take)(DLManagedTensorVersioned* managed);
};

void PrintTo(const Taking& taking, std::ostream* out) {
  *out << taking.name;
}

class EveryConsumer : public ::testing::TestWithParam<Taking> {
 protected:
  void take() { GetParam().take(&producer.managed); }
  Versioned producer;
};

TEST_P(EveryConsumer, rule_16_refuses_another_major_version_and_reads_nothing_of_it) {
  producer.managed.version = {2, 0};
  producer.tensor().shape = reinterpret_cast<std::int64_t*>(8);  // nobody may look
  producer.tensor().ndim = 4;
  EXPECT_THROW(take(), ConversionRefused);
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_P(EveryConsumer, rule_17_takes_a_newer_minor_version) {
  producer.managed.version = {1, 99};
  take();
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_P(EveryConsumer, rule_19_takes_a_tensor_without_a_deleter) {
  producer.managed.deleter = nullptr;
  take();
  producer.managed.version = {2, 0};
  EXPECT_THROW(take(), ConversionRefused);
  EXPECT_EQ(producer.deleted(), 0);
}

TEST_P(EveryConsumer, rule_19_ends_the_lease_of_what_it_refuses) {
  using Damage = void (*)(DLTensor&);
  const Damage damages[] = {
      [](DLTensor& t) { t.ndim = -1; },
      [](DLTensor& t) { t.ndim = 65; },
      [](DLTensor& t) { t.shape = nullptr; },
      [](DLTensor& t) { t.data = nullptr; },
      [](DLTensor& t) { t.dtype.bits = 0; },
      [](DLTensor& t) { t.dtype.code = 99; },
      [](DLTensor& t) { t.shape[0] = -1; },
      [](DLTensor& t) { t.shape[0] = std::int64_t{1} << 62; },
      [](DLTensor& t) { t.device.device_type = static_cast<DLDeviceType>(0); },
      [](DLTensor& t) { t.byte_offset = ~std::uint64_t{0}; },
  };
  for (const Damage damage : damages) {
    Versioned damaged;
    damage(damaged.tensor());
    EXPECT_THROW(GetParam().take(&damaged.managed), ConversionRefused);
    EXPECT_EQ(damaged.deleted(), 1);
  }
}

TEST_P(EveryConsumer, rule_21_takes_missing_strides_for_C_order) {
  producer.tensor().strides = nullptr;
  take();
  EXPECT_EQ(producer.deleted(), 1);
}

TEST_P(EveryConsumer, rule_22_refuses_float4_and_float6_of_other_widths) {
  for (const int code : {kDLFloat4_e2m1fn, kDLFloat6_e2m3fn, kDLFloat6_e3m2fn}) {
    Versioned wide;
    wide.tensor().dtype = {static_cast<std::uint8_t>(code), 8, 1};
    EXPECT_THROW(GetParam().take(&wide.managed), ConversionRefused);
    EXPECT_EQ(wide.deleted(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Takes, EveryConsumer,
    ::testing::Values(Taking{"adopt", [](auto* managed) { (void)ManagedTensor::adopt(managed); }},
                      Taking{"adopt_or_leave",
                             [](auto* managed) {
                               try {
                                 (void)ManagedTensor::adopt_or_leave(managed);
                               } catch (...) {
                                 if (managed->deleter != nullptr) {
                                   managed->deleter(managed);  // it was left
                                 }
                                 throw;
                               }
                             }},
                      Taking{"adopt_with_a_deleter_of_its_own",
                             [](auto* managed) {
                               (void)ManagedTensor::adopt(managed, [](void* context) noexcept {
                                 auto* own = static_cast<DLManagedTensorVersioned*>(context);
                                 if (own->deleter != nullptr) {
                                   own->deleter(own);
                                 }
                               });
                             }}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace dlbridge
