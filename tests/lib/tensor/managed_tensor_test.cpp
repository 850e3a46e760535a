// Ownership: who gives a lease back, when, how often and on which thread.

#include "dlbridge/managed_tensor.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <random>
#include <thread>
#include <type_traits>
#include <vector>

#include "dlbridge/error.hpp"
#include "dlbridge/tensor_view.hpp"
#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Legacy;
using doubles::Versioned;
using ::testing::ElementsAre;

static_assert(std::is_nothrow_move_constructible_v<ManagedTensor>);
static_assert(std::is_nothrow_move_assignable_v<ManagedTensor>);
static_assert(!std::is_copy_constructible_v<ManagedTensor>);
static_assert(!std::is_copy_assignable_v<ManagedTensor>);

// The same contract, whatever the tensor was made from.
struct FromVersioned {
  using Double = Versioned;
  static ManagedTensor take(Double& producer) { return ManagedTensor::adopt(&producer.managed); }
};
struct FromVersionedOrLeft {
  using Double = Versioned;
  static ManagedTensor take(Double& producer) {
    return ManagedTensor::adopt_or_leave(&producer.managed);
  }
};
struct FromLegacy {
  using Double = Legacy;
  static ManagedTensor take(Double& producer) {
    return ManagedTensor::adopt(&producer.managed, true);
  }
};
struct FromLease {
  using Double = Versioned;
  static ManagedTensor take(Double& producer) {
    return ManagedTensor::own(producer.tensor(), 0, producer.lease());
  }
};
struct FromTrustedLease {
  using Double = Versioned;
  static ManagedTensor take(Double& producer) {
    return ManagedTensor::own_trusted(producer.tensor(), 0, producer.lease());
  }
};

template <typename From>
class Taken : public ::testing::Test {
 protected:
  typename From::Double producer{{2, 3}};
  ManagedTensor take() { return From::take(producer); }
};
using Ways =
    ::testing::Types<FromVersioned, FromVersionedOrLeft, FromLegacy, FromLease, FromTrustedLease>;
TYPED_TEST_SUITE(Taken, Ways);

TYPED_TEST(Taken, runs_the_deleter_once_when_it_ends) {
  {
    const ManagedTensor tensor = this->take();
    EXPECT_EQ(this->producer.deleted(), 0);
    EXPECT_EQ(live_managed_tensors(), 1);
  }
  EXPECT_EQ(this->producer.deleted(), 1);
  EXPECT_EQ(live_managed_tensors(), 0);
}

TYPED_TEST(Taken, runs_the_deleter_once_when_the_last_share_ends) {
  ManagedTensor first = this->take();
  ManagedTensor second = first.share();
  ManagedTensor third = second.share();
  first = ManagedTensor();
  third = ManagedTensor();
  EXPECT_EQ(this->producer.deleted(), 0);
  EXPECT_EQ(static_cast<float*>(second.data())[5], 5.0F);
  EXPECT_THAT(second.shape(), ElementsAre(2, 3));
  second = ManagedTensor();
  EXPECT_EQ(this->producer.deleted(), 1);
}

TYPED_TEST(Taken, runs_the_deleter_once_after_the_struct_was_handed_over) {
  DLManagedTensorVersioned* managed = this->take().release();
  EXPECT_EQ(this->producer.deleted(), 0);
  EXPECT_EQ(live_managed_tensors(), 1);
  managed->deleter(managed);
  EXPECT_EQ(this->producer.deleted(), 1);
}

TYPED_TEST(Taken, runs_the_deleter_once_after_the_legacy_struct_was_handed_over) {
  DLManagedTensor* managed = this->take().release_legacy();
  EXPECT_EQ(this->producer.deleted(), 0);
  EXPECT_EQ(live_managed_tensors(), 1);
  managed->deleter(managed);
  EXPECT_EQ(this->producer.deleted(), 1);
}

TYPED_TEST(Taken, runs_the_deleter_on_the_thread_on_which_it_ends) {
  ManagedTensor tensor = this->take();
  std::thread::id other;
  std::thread([&other, moved = std::move(tensor)]() mutable {
    other = std::this_thread::get_id();
    moved = ManagedTensor();
  }).join();
  EXPECT_EQ(this->producer.deleted(), 1);
  EXPECT_EQ(this->producer.deleted_on(), other);
}

TYPED_TEST(Taken, keeps_its_own_shape_and_strides) {
  const ManagedTensor tensor = this->take();
  this->producer.shape.assign({900, 900});
  this->producer.strides.assign({-5, -5});
  this->producer.tensor().data = nullptr;
  EXPECT_THAT(tensor.shape(), ElementsAre(2, 3));
  EXPECT_THAT(tensor.strides(), ElementsAre(3, 1));
  EXPECT_EQ(tensor.data(), this->producer.memory.data());
}

TYPED_TEST(Taken, fills_missing_strides_in_c_order) {
  this->producer.tensor().strides = nullptr;
  EXPECT_THAT(this->take().strides(), ElementsAre(3, 1));
}

TYPED_TEST(Taken, keeps_the_strides_that_it_was_given) {
  this->producer.strides = {1, 2};
  this->producer.tensor().strides = this->producer.strides.data();
  EXPECT_THAT(this->take().strides(), ElementsAre(1, 2));
}

TYPED_TEST(Taken, folds_the_byte_offset_into_the_address) {
  this->producer.tensor().byte_offset = 8;
  const ManagedTensor tensor = this->take();
  EXPECT_EQ(tensor.data(), this->producer.memory.data() + 2);
  EXPECT_EQ(tensor.tensor().byte_offset, 0U);
}

TYPED_TEST(Taken, leaves_the_byte_offset_beside_an_opaque_handle) {
  for (const int type : {kDLOpenCL, kDLVulkan, kDLMetal, kDLWebGPU}) {
    SCOPED_TRACE(to_string(Device(type, 0)));
    typename TypeParam::Double abroad({2, 3});
    abroad.tensor().device = {static_cast<DLDeviceType>(type), 0};
    abroad.tensor().byte_offset = 8;
    const ManagedTensor tensor = TypeParam::take(abroad);
    EXPECT_EQ(tensor.data(), abroad.memory.data());
    EXPECT_EQ(tensor.tensor().byte_offset, 8U);
  }
}

TYPED_TEST(Taken, folds_the_byte_offset_of_device_memory_with_addresses) {
  for (const int type : {kDLCUDA, kDLROCM, kDLOneAPI, kDLCUDAManaged, kDLCUDAHost}) {
    SCOPED_TRACE(to_string(Device(type, 0)));
    typename TypeParam::Double abroad({2, 3});
    abroad.tensor().device = {static_cast<DLDeviceType>(type), 0};
    abroad.tensor().byte_offset = 8;
    const ManagedTensor tensor = TypeParam::take(abroad);
    EXPECT_EQ(tensor.data(), abroad.memory.data() + 2);
    EXPECT_EQ(tensor.tensor().byte_offset, 0U);
  }
}

TYPED_TEST(Taken, speaks_dlpack_one_point_three_when_it_leaves) {
  DLManagedTensorVersioned* managed = this->take().release();
  EXPECT_EQ(managed->version.major, 1U);
  EXPECT_EQ(managed->version.minor, 3U);
  EXPECT_EQ(managed->flags, 0U);
  EXPECT_NE(managed->dl_tensor.strides, nullptr);
  managed->deleter(managed);
}

// ---- what is plain at a glance ----------------------------------------------------------------

TEST(PlainBytes, are_those_of_sound_tensors_in_c_order) {
  std::mt19937_64 bits(4);
  const auto one_of = [&](std::initializer_list<std::int64_t> all) {
    return *(all.begin() + bits() % all.size());
  };
  int plain = 0;
  for (int round = 0; round < 200000; ++round) {
    std::array<std::int64_t, 4> shape{};
    std::array<std::int64_t, 4> strides{};
    DLTensor tensor{};
    tensor.ndim = static_cast<std::int32_t>(one_of({0, 1, 2, 2, 3, 4}));
    for (std::size_t i = 0; i < 4; ++i) {
      shape[i] = one_of({1, 2, 3, 3, 5, 8, 0, -1, std::int64_t{1} << 31, std::int64_t{1} << 62});
    }
    fill_c_strides({shape.data(), static_cast<std::size_t>(tensor.ndim)}, strides.data());
    if (bits() % 4 == 0) {
      strides[bits() % 4] = one_of({1, 0, -1, 7});
    }
    float memory = 0;
    tensor.data = bits() % 16 == 0   ? nullptr
                  : bits() % 16 == 0 ? reinterpret_cast<void*>(~std::uintptr_t{0} / 2 - 64)
                                     : &memory;
    tensor.shape = bits() % 16 == 0 ? nullptr : shape.data();
    tensor.strides = bits() % 16 == 0 ? nullptr : strides.data();
    tensor.device = {static_cast<DLDeviceType>(one_of({1, 1, 1, 1, 2, 3, 13, 99})), 0};
    tensor.dtype = {static_cast<std::uint8_t>(one_of({0, 1, 2, 2, 4, 5, 6, 10, 17, 40})),
                    static_cast<std::uint8_t>(one_of({8, 16, 32, 32, 64, 128, 4, 1, 0})),
                    static_cast<std::uint16_t>(one_of({1, 1, 1, 2, 0}))};
    tensor.byte_offset = static_cast<std::uint64_t>(one_of({0, 0, 0, 4}));
    if (const std::int64_t bytes = plain_bytes(tensor); bytes != 0) {
      ++plain;
      ASSERT_EQ(tensor_fault(tensor), "") << "in round " << round;
      ASSERT_TRUE(is_c_contiguous(tensor)) << "in round " << round;
      ASSERT_EQ(bytes, byte_count(tensor)) << "in round " << round;
      ASSERT_EQ(tensor.device.device_type, kDLCPU);
      ASSERT_EQ(tensor.byte_offset, 0U);
      ASSERT_NE(element_count(tensor), 0);
    }
  }
  EXPECT_GT(plain, 5000);
}

TEST(ManagedTensor, is_empty_at_first_and_after_a_move) {
  Versioned producer;
  ManagedTensor empty;
  EXPECT_FALSE(empty);
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_TRUE(tensor);
  empty = std::move(tensor);
  EXPECT_FALSE(tensor);  // NOLINT(bugprone-use-after-move): what it is for
  EXPECT_TRUE(empty);
  const ManagedTensor third(std::move(empty));
  EXPECT_FALSE(empty);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(producer.deleted(), 0);
}

TEST(ManagedTensor, that_another_is_moved_into_gives_back_what_it_held) {
  Versioned before;
  Versioned after;
  ManagedTensor tensor = ManagedTensor::adopt(&before.managed);
  ManagedTensor other = ManagedTensor::adopt(&after.managed);
  tensor = std::move(other);
  EXPECT_EQ(before.deleted(), 1);
  EXPECT_FALSE(other);  // NOLINT(bugprone-use-after-move): what it is for
  ManagedTensor& itself = tensor;
  tensor = std::move(itself);
  EXPECT_TRUE(tensor);
  EXPECT_EQ(after.deleted(), 0);
}

TEST(ManagedTensor, that_is_empty_is_refused_a_share) {
  EXPECT_THROW((void)ManagedTensor{}.share(), MalformedTensor);
}

// Lives on in what an action holds; counts its ends.
struct Counted {
  explicit Counted(int& ends) : ends_(ends) {}
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { ++ends_; }

 private:
  int& ends_;
};

TEST(Lease, calls_an_action_that_holds_something_once) {
  int calls = 0;
  int ends = 0;
  const auto held = std::make_shared<Counted>(ends);
  Versioned memory;
  {
    const ManagedTensor tensor = ManagedTensor::own(
        memory.tensor(), 0, Lease::calling([&calls, held]() noexcept { ++calls; }));
    const ManagedTensor other = tensor.share();
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(held.use_count(), 1);
  memory.tensor().ndim = -1;
  EXPECT_THROW((void)ManagedTensor::own(memory.tensor(), 0,
                                        Lease::calling([&calls]() noexcept { ++calls; })),
               MalformedTensor);
  EXPECT_EQ(calls, 2);
}

TEST(ManagedTensor, owns_a_vector_without_a_copy) {
  std::vector<float> values{0, 1, 2, 3, 4, 5};
  const float* const address = values.data();
  const ManagedTensor flat = ManagedTensor::own(std::move(values));
  EXPECT_EQ(flat.data(), address);
  EXPECT_THAT(flat.shape(), ::testing::ElementsAre(6));
  EXPECT_FALSE(flat.readonly());
  const ManagedTensor matrix = ManagedTensor::own(std::vector<std::int16_t>(6), {2, 3});
  EXPECT_THAT(matrix.shape(), ::testing::ElementsAre(2, 3));
  EXPECT_EQ(matrix.dtype(), DType(kDLInt, 16));
  EXPECT_EQ(ManagedTensor::own(std::vector<double>{}).shape()[0], 0);
  EXPECT_THROW((void)ManagedTensor::own(std::vector<float>(5), {2, 3}), MalformedTensor);
  EXPECT_THROW((void)ManagedTensor::own(std::vector<float>(6), {-2, -3}), MalformedTensor);
}

TEST(ManagedTensor, holds_the_keeper_of_memory_to_its_end) {
  int ends = 0;
  std::array<double, 6> memory{};
  auto keeper = std::make_shared<Counted>(ends);
  {
    const ManagedTensor tensor = ManagedTensor::own(memory.data(), {2, 3}, keeper);
    EXPECT_EQ(tensor.data(), memory.data());
    EXPECT_FALSE(tensor.readonly());
    const double* const constant = memory.data();
    EXPECT_TRUE(ManagedTensor::own(constant, {6}, keeper).readonly());
    keeper.reset();
    EXPECT_EQ(ends, 0);
  }
  EXPECT_EQ(ends, 1);
  keeper = std::make_shared<Counted>(ends);
  EXPECT_THROW((void)ManagedTensor::own(memory.data(), {-1}, std::move(keeper)), MalformedTensor);
  EXPECT_EQ(ends, 2);
}

TEST(ManagedTensor, holds_the_keeper_of_memory_with_strides) {
  int ends = 0;
  std::array<float, 6> memory{0, 1, 2, 3, 4, 5};
  {
    const auto columns =
        ManagedTensor::own(memory.data(), {2, 3}, {1, 2}, std::make_shared<Counted>(ends));
    EXPECT_EQ((TensorView<float, 2>(columns)(1, 2)), 5);
    EXPECT_EQ((TensorView<float, 2>(columns)(0, 1)), 2);
    EXPECT_EQ(ends, 0);
  }
  EXPECT_EQ(ends, 1);
  EXPECT_THROW(
      (void)ManagedTensor::own(memory.data(), {2, 3}, {1}, std::make_shared<Counted>(ends)),
      MalformedTensor);
  EXPECT_EQ(ends, 2);
}

TEST(ManagedTensor, takes_a_null_deleter) {
  Versioned producer;
  producer.managed.deleter = nullptr;
  { const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed); }
  Legacy legacy;
  legacy.managed.deleter = nullptr;
  { const ManagedTensor tensor = ManagedTensor::adopt(&legacy.managed, true); }
  EXPECT_EQ(producer.deleted() + legacy.deleted(), 0);
}

TEST(ManagedTensor, takes_a_lease_without_a_release) {
  Versioned producer;
  { const ManagedTensor tensor = ManagedTensor::own(producer.tensor(), 0, Lease{}); }
  EXPECT_EQ(producer.deleted(), 0);
}

struct Replaced {
  static inline void* ended = nullptr;
  static inline int calls = 0;
  static void run(void* managed) noexcept {
    ended = managed;
    ++calls;
  }
};

TEST(ManagedTensor, calls_the_replacement_instead_of_the_deleter) {
  Replaced::calls = 0;
  Versioned producer;
  { const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed, &Replaced::run); }
  EXPECT_EQ(Replaced::calls, 1);
  EXPECT_EQ(Replaced::ended, &producer.managed);
  Legacy legacy;
  { const ManagedTensor tensor = ManagedTensor::adopt(&legacy.managed, true, &Replaced::run); }
  EXPECT_EQ(Replaced::calls, 2);
  EXPECT_EQ(Replaced::ended, &legacy.managed);
  EXPECT_EQ(producer.deleted() + legacy.deleted(), 0);
}

TEST(ManagedTensor, calls_the_replacement_also_for_what_it_refuses) {
  Replaced::calls = 0;
  Versioned producer;
  producer.tensor().ndim = -1;
  EXPECT_THROW((void)ManagedTensor::adopt(&producer.managed, &Replaced::run), MalformedTensor);
  EXPECT_EQ(Replaced::calls, 1);
  EXPECT_EQ(producer.deleted(), 0);
}

TEST(ManagedTensor, keeps_the_flags_of_a_versioned_tensor) {
  Versioned producer;
  producer.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY | DLPACK_FLAG_BITMASK_IS_COPIED;
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_TRUE(tensor.readonly());
  EXPECT_EQ(tensor.flags(), std::uint64_t{3});
  EXPECT_EQ(tensor.share().flags(), std::uint64_t{1});  // it is nobody's alone now
}

TEST(ManagedTensor, takes_a_legacy_tensor_as_read_only_unless_told_otherwise) {
  Legacy careful;
  EXPECT_TRUE(ManagedTensor::adopt(&careful.managed, false).readonly());
  Legacy known;
  EXPECT_FALSE(ManagedTensor::adopt(&known.managed, true).readonly());
  EXPECT_EQ(careful.deleted(), 1);
  EXPECT_EQ(known.deleted(), 1);
}

TEST(ManagedTensor, never_leaves_as_legacy_when_read_only_and_stays_with_its_owner) {
  Versioned producer;
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  tensor.mark_read_only();
  try {
    (void)tensor.release_legacy();
    FAIL() << "read-only memory left in a legacy struct";
  } catch (const ConversionRefused& refused) {
    EXPECT_STREQ(refused.what(),
                 "cannot export read-only memory in a legacy struct (it cannot say that nobody may "
                 "write); use release(), or to_managed<DLPack>(x, managed_tensor_capabilities(), "
                 "Policy::snapshot()) for a copy");
    EXPECT_THAT(refused.reasons, ElementsAre("a legacy struct cannot say that nobody may write"));
    EXPECT_EQ(refused.fix,
              "release(), or to_managed<DLPack>(x, managed_tensor_capabilities(), "
              "Policy::snapshot()) for a copy");
  }
  EXPECT_TRUE(tensor);
  EXPECT_EQ(producer.deleted(), 0);
  tensor = ManagedTensor();
  EXPECT_EQ(producer.deleted(), 1);
}

// A reader of the legacy struct would take them for packed ones.
TEST(ManagedTensor, never_leaves_as_legacy_when_its_elements_are_padded) {
  Versioned producer;
  producer.managed.flags = DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED;
  producer.tensor().dtype = DType(kDLUInt, 4).dl();
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  EXPECT_THROW((void)tensor.release_legacy(), ConversionRefused);
  EXPECT_TRUE(tensor);
}

TEST(ManagedTensor, takes_its_own_export_back_without_wrapping_it) {
  Versioned producer;
  DLManagedTensorVersioned* exported = ManagedTensor::adopt(&producer.managed).release();
  {
    const ManagedTensor back = ManagedTensor::adopt(exported);
    EXPECT_EQ(live_managed_tensors(), 1);
    EXPECT_EQ(&back.tensor(), &exported->dl_tensor);
    EXPECT_EQ(producer.deleted(), 0);
  }
  EXPECT_EQ(producer.deleted(), 1);
}

TEST(ManagedTensor, survives_its_exports_and_they_survive_it) {
  Versioned producer;
  ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  DLManagedTensorVersioned* first = tensor.share().release();
  DLManagedTensor* second = tensor.share().release_legacy();
  EXPECT_EQ(live_managed_tensors(), 3);
  first->deleter(first);
  tensor = ManagedTensor();
  EXPECT_EQ(producer.deleted(), 0);
  EXPECT_EQ(second->dl_tensor.data, producer.memory.data());
  second->deleter(second);
  EXPECT_EQ(producer.deleted(), 1);
}

TEST(ManagedTensor, gives_every_share_dimensions_of_its_own) {
  Versioned producer;
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  DLManagedTensorVersioned* share = tensor.share().release();
  share->dl_tensor.shape[0] = 99;
  share->dl_tensor.strides[0] = 99;
  EXPECT_THAT(tensor.shape(), ElementsAre(2, 3));
  EXPECT_THAT(tensor.strides(), ElementsAre(3, 1));
  share->deleter(share);
}

TEST(ManagedTensor, marks_one_share_read_only_and_not_the_others) {
  Versioned producer;
  const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  ManagedTensor share = tensor.share();
  share.mark_read_only();
  EXPECT_TRUE(share.readonly());
  EXPECT_FALSE(tensor.readonly());
  EXPECT_TRUE(share.share().readonly());
}

TEST(ManagedTensor, runs_the_deleter_once_when_shares_end_on_many_threads) {
  for (int round = 0; round < 50; ++round) {
    Versioned producer;
    std::vector<std::thread> threads;
    {
      const ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
      for (int i = 0; i < 8; ++i) {
        threads.emplace_back([share = tensor.share()]() mutable {
          DLManagedTensorVersioned* further = share.share().release();
          share = ManagedTensor();
          further->deleter(further);
        });
      }
    }
    for (auto& thread : threads) {
      thread.join();
    }
    ASSERT_EQ(producer.deleted(), 1);
  }
}

}  // namespace
}  // namespace dlbridge
