// From a device to the host by the runtime: what crosses, in which order, and how much of it.
#include <gmock/gmock.h>

#include <complex>
#include <numeric>

#include "guarded/transfer_fixture.hpp"

namespace dlbridge::guarded {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class to_host : public TransferTest {
 protected:
  // The tensor as it lies, carried out under the policy `host`.
  ManagedTensor cross(const DLTensor& tensor, Stream on = {}, Conditions conditions = {},
                      std::optional<DType> dtype = {}) {
    Source source;
    describe(tensor, on, source);
    source.traits.conditions = conditions;
    Request request;
    request.dtype = dtype;
    const Plan decided = TransferTest::to_host(source, request);
    EXPECT_FALSE(decided.is_refused());
    EXPECT_EQ(decided.legs().back().who, Who::kRuntime);
    return carry_out(decided, source);
  }
};

TEST_F(to_host, a_copy_is_plain_host_memory_with_the_values) {
  OnDevice source(device, {2, 3});
  const ManagedTensor copy = cross(source.tensor());
  EXPECT_EQ(copy.device(), Device{});
  EXPECT_NE(copy.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
  EXPECT_FALSE(copy.readonly());
  EXPECT_THAT(values_of<float>(copy), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(device.counts().to_host, 24);
  EXPECT_EQ(device.counts().kernels, 0);
  EXPECT_EQ(device.counts().pageable_copies, 0);
}

TEST_F(to_host, the_producers_work_is_waited_for) {
  OnDevice source(device, {2, 3});
  device.hold(0, stream);
  source.store_later(stream);
  const ManagedTensor copy = while_held(0, stream, [&] { return cross(source.tensor(), stream); });
  EXPECT_EQ(values_of<float>(copy), source.values());
}

TEST_F(to_host, work_on_other_streams_is_not_waited_for) {
  OnDevice source(device, {2, 3});
  const Stream other = device.make_stream(0);
  device.hold(0, other);
  device.hold(0, {});
  device.enqueue(0, other, [] {});
  device.enqueue(0, {}, [] {});
  EXPECT_EQ(values_of<float>(cross(source.tensor(), stream)), source.values());
}

// Sizes around the borders of the staging buffers, with the producer's work still to come and every
// piece of work late by chance: what is emptied before it was filled holds other values.
class sizes : public to_host, public ::testing::WithParamInterface<std::int64_t> {};

TEST_P(sizes, arrive_whole) {
  const std::int64_t bytes = GetParam();
  OnDevice source(device, {bytes / 4});
  device.delay(11, 2000);
  device.hold(0, stream);
  source.store_later(stream);
  device.begin_count();
  ManagedTensor copy = bytes < 4
                           ? cross(source.tensor(), stream)
                           : while_held(0, stream, [&] { return cross(source.tensor(), stream); });
  EXPECT_TRUE(values_of<float>(copy) == source.values());
  EXPECT_EQ(device.counts().to_host, bytes / 4 * 4);
  EXPECT_EQ(device.counts().pageable_copies, 0);
}

TEST_P(sizes, arrive_whole_from_every_other_element) {
  const std::int64_t count = GetParam() / 4;
  OnDevice source(device, {2 * count});
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {count};
  std::int64_t strides[] = {2};
  tensor.shape = shape;
  tensor.strides = strides;
  device.delay(12, 2000);
  device.hold(0, stream);
  source.store_later(stream);
  device.begin_count();
  const ManagedTensor copy = count == 0
                                 ? cross(tensor, stream)
                                 : while_held(0, stream, [&] { return cross(tensor, stream); });
  std::vector<float> expected;
  const std::vector<float> all = source.values();
  for (std::size_t i = 0; i < all.size(); i += 2) {
    expected.push_back(all[i]);
  }
  EXPECT_TRUE(values_of<float>(copy) == expected);
  EXPECT_EQ(device.counts().to_host, 4 * count) << "only the target's bytes may cross";
}

INSTANTIATE_TEST_SUITE_P(around_the_chunks, sizes, ::testing::ValuesIn(kSizes));

TEST_F(to_host, a_transposed_matrix_is_turned_on_the_device) {
  OnDevice source(device, {64, 48});
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {48, 64};
  std::int64_t strides[] = {1, 48};
  tensor.shape = shape;
  tensor.strides = strides;
  device.hold(0, stream);
  source.store_later(stream);
  const ManagedTensor copy = while_held(0, stream, [&] { return cross(tensor, stream); });
  const auto values = values_of<float>(copy);
  EXPECT_EQ(values[1], 48);
  EXPECT_EQ(values[64], 1);
  EXPECT_EQ(device.counts().to_host, 64 * 48 * 4);
  EXPECT_EQ(device.counts().kernels, 1);
}

TEST_F(to_host, reversed_elements_are_turned_around_on_the_device) {
  OnDevice source(device, {5});
  DLTensor tensor = source.tensor();
  std::int64_t strides[] = {-1};
  tensor.strides = strides;
  tensor.byte_offset = 4 * sizeof(float);
  EXPECT_THAT(values_of<float>(cross(tensor)), ElementsAre(4, 3, 2, 1, 0));
  EXPECT_EQ(device.counts().to_host, 20);
}

TEST_F(to_host, rows_with_gaps_cross_without_their_gaps) {
  OnDevice source(device, {10, 1000});
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {10, 700};
  tensor.shape = shape;
  const auto values = values_of<float>(cross(tensor));
  EXPECT_EQ(values[699], 699);
  EXPECT_EQ(values[700], 1000);
  EXPECT_EQ(device.counts().to_host, 10 * 700 * 4);
}

TEST_F(to_host, a_cast_that_cannot_fail_is_done_before_the_bus) {
  OnDevice source(device, {7});
  const ManagedTensor copy = cross(source.tensor(), {}, {}, DType{kDLFloat, 64});
  EXPECT_THAT(values_of<double>(copy), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(device.counts().to_host, 7 * 8);
  EXPECT_EQ(device.counts().kernels, 1);
}

TEST_F(to_host, a_cast_that_has_to_be_checked_is_done_behind_the_bus) {
  OnDevice source(device, {7});
  const ManagedTensor copy = cross(source.tensor(), {}, {}, DType{kDLInt, 8});
  EXPECT_THAT(values_of<std::int8_t>(copy), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(device.counts().to_host, 7 * 4);
  EXPECT_EQ(device.counts().kernels, 0);
}

TEST_F(to_host, conjugate_and_negative_bits_are_resolved_before_the_bus) {
  using Complex = std::complex<float>;
  OnDevice source(device, {2}, {kDLComplex, 64});
  const std::vector<Complex> values = {{1, 2}, {3, -4}};
  device.store(source.memory(), values.data(), source.bytes());
  const ManagedTensor conjugate = cross(source.tensor(), {}, {Condition::kConjBit});
  EXPECT_THAT(values_of<Complex>(conjugate), ElementsAre(Complex(1, -2), Complex(3, 4)));
  const ManagedTensor negative = cross(source.tensor(), {}, {Condition::kNegBit});
  EXPECT_THAT(values_of<Complex>(negative), ElementsAre(Complex(-1, -2), Complex(-3, 4)));
  EXPECT_EQ(device.counts().to_host, 32);
}

TEST_F(to_host, an_overlapping_tensor_crosses_element_by_element) {
  OnDevice source(device, {3});
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {2, 3};
  std::int64_t strides[] = {0, 1};
  tensor.ndim = 2;
  tensor.shape = shape;
  tensor.strides = strides;
  EXPECT_THAT(values_of<float>(cross(tensor)), ElementsAre(0, 1, 2, 0, 1, 2));
}

TEST_F(to_host, no_dimension_and_no_element_are_as_good_as_any) {
  OnDevice one(device, {});
  EXPECT_THAT(values_of<float>(cross(one.tensor())), ElementsAre(0));
  OnDevice none(device, {3, 0, 2});
  EXPECT_THAT(values_of<float>(cross(none.tensor())), IsEmpty());
}

TEST_F(to_host, the_pointers_own_device_counts) {
  OnDevice source(device, {4}, {kDLFloat, 32}, 1);
  DLTensor tensor = source.tensor();
  tensor.device.device_id = 0;  // as the object says
  EXPECT_EQ(values_of<float>(cross(tensor)), source.values());
}

TEST_F(to_host, a_pointer_that_belongs_to_no_device_is_refused) {
  float plain[4] = {};
  OnDevice source(device, {4});
  DLTensor tensor = source.tensor();
  tensor.data = plain;
  try {
    (void)cross(tensor);
    FAIL();
  } catch (const ConversionRefused& refused) {
    EXPECT_THAT(refused.what(), HasSubstr("guarded knows of no memory at its address"));
  }
}

TEST_F(to_host, a_capture_is_refused_and_not_broken) {
  OnDevice source(device, {4});
  device.begin_capture(0, stream);
  try {
    (void)cross(source.tensor(), stream);
    FAIL();
  } catch (const ConversionRefused& refused) {
    EXPECT_THAT(refused.what(), HasSubstr("captured into a graph"));
  }
  EXPECT_TRUE(device.end_capture(0, stream));
  EXPECT_EQ(values_of<float>(cross(source.tensor(), stream)), source.values());
}

TEST_F(to_host, a_capture_on_another_stream_is_not_broken) {
  OnDevice source(device, {4});
  const Stream capturing = device.make_stream(0);
  device.begin_capture(0, capturing);
  EXPECT_EQ(values_of<float>(cross(source.tensor(), stream)), source.values());
  EXPECT_TRUE(device.end_capture(0, capturing));
}

TEST_F(to_host, what_the_producers_work_failed_with_is_told) {
  OnDevice source(device, {4});
  may_be_lost = 1;  // a buffer that a failed device may write to is never used again
  device.fail_work(0, stream, "an illegal address in the kernel");
  try {
    (void)cross(source.tensor(), stream);
    FAIL();
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), HasSubstr("illegal address"));
  }
  device.settle();
  EXPECT_EQ(values_of<float>(cross(source.tensor(), stream)), source.values());
}

TEST_F(to_host, a_device_that_is_gone_is_an_error) {
  OnDevice source(device, {4});
  device.unplug(true);
  EXPECT_THROW((void)cross(source.tensor()), DeviceError);
  device.unplug(false);
  EXPECT_EQ(values_of<float>(cross(source.tensor())), source.values());
}

TEST_F(to_host, many_threads_cross_at_once_with_all_work_late) {
  device.delay(13, 500);
  std::vector<std::future<void>> all;
  for (int thread = 0; thread < 4; ++thread) {
    all.push_back(std::async(std::launch::async, [&, thread] {
      for (int i = 0; i < 5; ++i) {
        const Stream mine = device.make_stream(thread % 2);
        OnDevice source(device, {700 + 300 * thread * i}, {kDLFloat, 32}, thread % 2);
        source.store_later(mine);
        const ManagedTensor copy = cross(source.tensor(), mine);
        EXPECT_TRUE(values_of<float>(copy) == source.values());
      }
    }));
  }
  for (auto& each : all) {
    each.get();
  }
}

// --- into memory that is there
// --------------------------------------------------------------------

TEST_F(to_host, a_pinned_target_is_written_by_the_device_itself) {
  const std::int64_t count = 100000;
  OnDevice source(device, {count});
  const ManagedTensor target = allocate_pinned(device, {kDLFloat, 32}, {{count}});
  Source described;
  describe(source.tensor(), stream, described);
  device.hold(0, stream);
  source.store_later(stream);
  while_held(0, stream, [&] {
    carry_out_into(TransferTest::to_host(described), described, target.tensor());
    return 0;
  });
  EXPECT_TRUE(values_of<float>(target) == source.values());
  EXPECT_EQ(device.calls(Call::kAllocateHost), 1) << "no staging is needed";
}

TEST_F(to_host, a_strided_target_keeps_what_lies_between) {
  OnDevice source(device, {2, 3});
  std::vector<float> memory(12, -1);
  std::int64_t shape[] = {2, 3};
  std::int64_t strides[] = {6, 2};
  DLTensor target = source.tensor();
  target.data = memory.data();
  target.device = Device{}.dl();
  target.shape = shape;
  target.strides = strides;
  Source described;
  describe(source.tensor(), {}, described);
  carry_out_into(TransferTest::to_host(described), described, target);
  EXPECT_THAT(memory, ElementsAre(0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1));
}

// --- begun, and waited for later
// ------------------------------------------------------------------

class arriving : public to_host {
 protected:
  ArrivingTensor begin(OnDevice& source, Stream on, int& released) {
    Source described;
    describe(source.tensor(), on, described);
    ManagedTensor owner = ManagedTensor::own(
        source.tensor(), 0, {&released, [](void* count) noexcept { ++*static_cast<int*>(count); }});
    return begin_to_host(TransferTest::to_host(described), described, std::move(owner));
  }
};

TEST_F(arriving, it_arrives_after_the_producers_work_and_not_before) {
  int released = 0;
  OnDevice source(device, {1000});
  device.hold(0, stream);
  source.store_later(stream);
  ArrivingTensor tensor = begin(source, stream, released);
  EXPECT_FALSE(tensor.has_come());
  EXPECT_EQ(released, 0);
  device.let_go(0, stream);
  const ManagedTensor array = tensor.take();
  EXPECT_EQ(released, 1);
  EXPECT_TRUE(values_of<float>(array) == source.values());
}

TEST_F(arriving, what_the_producer_writes_later_is_not_copied) {
  int released = 0;
  OnDevice source(device, {1000});
  device.hold(0, stream);
  source.store_later(stream);
  ArrivingTensor tensor = begin(source, stream, released);
  device.store_later(0, source.memory(), std::vector<std::byte>(source.bytes()), stream);
  device.let_go(0, stream);
  EXPECT_TRUE(values_of<float>(tensor.take()) == source.values());
  device.synchronise(0, stream);
}

TEST_F(arriving, one_that_is_dropped_keeps_its_memory_until_the_device_is_done) {
  int released = 0;
  OnDevice source(device, {1000});
  device.hold(0, stream);
  source.store_later(stream);
  {
    std::optional<ArrivingTensor> tensor = begin(source, stream, released);
    EXPECT_EQ(released, 0);
    while_held(0, stream, [&] {
      tensor.reset();
      return 0;
    });
  }
  EXPECT_EQ(released, 1);
}

TEST_F(arriving, what_failed_is_told_and_the_source_released) {
  int released = 0;
  OnDevice source(device, {1000});
  device.fail_work(0, stream, "an illegal address in the kernel");
  ArrivingTensor tensor = begin(source, stream, released);
  EXPECT_THROW((void)tensor.take(), DeviceError);
  tensor = ArrivingTensor();
  EXPECT_EQ(released, 1);
}

TEST_F(arriving, a_strided_source_is_gathered_before_the_bus) {
  int released = 0;
  OnDevice source(device, {1000, 3});
  Source described;
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {3, 1000};
  std::int64_t strides[] = {1, 3};
  tensor.shape = shape;
  tensor.strides = strides;
  describe(tensor, stream, described);
  ManagedTensor owner = ManagedTensor::own(
      tensor, 0, {&released, [](void* count) noexcept { ++*static_cast<int*>(count); }});
  ArrivingTensor arrives =
      begin_to_host(TransferTest::to_host(described), described, std::move(owner));
  const auto values = values_of<float>(arrives.take());
  EXPECT_EQ(values[1], 3);
  EXPECT_EQ(values[1000], 1);
  EXPECT_EQ(device.counts().to_host, 12000);
}

TEST_F(arriving, a_capture_is_refused_and_not_broken) {
  int released = 0;
  OnDevice source(device, {1000});
  device.begin_capture(0, stream);
  EXPECT_THROW((void)begin(source, stream, released), ConversionRefused);
  EXPECT_TRUE(device.end_capture(0, stream));
  EXPECT_EQ(released, 1);
}

}  // namespace
}  // namespace dlbridge::guarded
