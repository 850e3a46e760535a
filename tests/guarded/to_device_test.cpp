// From the host to a device by the runtime, and from one place on a device to another.
#include <gmock/gmock.h>

#include <complex>
#include <numeric>

#include "guarded/transfer_fixture.hpp"

namespace dlbridge::guarded {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class to_device : public TransferTest {
 protected:
  // Float32 numbers 0, 1, 2, ... on the host.
  struct OnHost {
    explicit OnHost(std::vector<std::int64_t> shape_)
        : shape(std::move(shape_)), strides(shape.size()) {
      fill_c_strides(shape, strides.data());
      std::int64_t count = 1;
      for (const auto size : shape) {
        count *= size;
      }
      values.resize(static_cast<std::size_t>(count));
      std::iota(values.begin(), values.end(), 0.0F);
    }
    [[nodiscard]] DLTensor tensor() {
      DLTensor tensor{};
      tensor.data = values.data();
      tensor.device = Device{}.dl();
      tensor.ndim = static_cast<std::int32_t>(shape.size());
      tensor.dtype = DType{kDLFloat, 32}.dl();
      tensor.shape = shape.data();
      tensor.strides = strides.data();
      return tensor;
    }
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;
    std::vector<float> values;
  };

  ManagedTensor cross(const DLTensor& tensor, int id = 0, Conditions conditions = {},
                      std::optional<DType> dtype = {}) {
    Source source;
    describe(tensor, {}, source);
    source.traits.conditions = conditions;
    Request request;
    request.dtype = dtype;
    request.device = Device(kDLExtDev, id);
    const Plan decided = plan(source, kOnDevice, Policy::host(), request);
    EXPECT_FALSE(decided.is_refused());
    EXPECT_EQ(decided.legs().back().who, Who::kRuntime);
    return carry_out(decided, source);
  }
};

TEST_F(to_device, a_copy_is_memory_of_that_device_with_the_values) {
  OnHost source({2, 3});
  const ManagedTensor copy = cross(source.tensor(), 1);
  EXPECT_EQ(copy.device(), Device(kDLExtDev, 1));
  EXPECT_EQ(device.locate(copy.data()), Device(kDLExtDev, 1));
  EXPECT_NE(copy.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
  EXPECT_EQ(read_back<float>(copy), source.values);
  EXPECT_EQ(device.counts().to_device, 24);
  EXPECT_EQ(device.counts().kernels, 0);
  EXPECT_EQ(device.counts().pageable_copies, 0);
}

// The source may be written to as soon as the call returns, though nothing has crossed yet.
class sizes_to_device : public to_device, public ::testing::WithParamInterface<std::int64_t> {};

TEST_P(sizes_to_device, leave_whole_before_anything_has_crossed) {
  const std::int64_t bytes = GetParam();
  OnHost source({bytes / 4});
  const std::vector<float> expected = source.values;
  const Stream own = device.own_stream(0);
  const bool staged_at_once = bytes <= 64;  // more may need its buffers back in between
  if (staged_at_once) {
    device.hold(0, own);
  } else {
    device.delay(21, 2000);
  }
  const ManagedTensor copy = cross(source.tensor());
  std::fill(source.values.begin(), source.values.end(), -1.0F);
  device.let_go(0, own);
  EXPECT_TRUE(read_back<float>(copy) == expected);
  EXPECT_EQ(device.counts().to_device, bytes / 4 * 4);
}

TEST_P(sizes_to_device, leave_whole_from_every_other_element) {
  const std::int64_t count = GetParam() / 4;
  OnHost source({2 * count});
  std::vector<float> expected;
  for (std::size_t i = 0; i < source.values.size(); i += 2) {
    expected.push_back(source.values[i]);
  }
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {count};
  std::int64_t strides[] = {2};
  tensor.shape = shape;
  tensor.strides = strides;
  device.delay(22, 2000);
  const ManagedTensor copy = cross(tensor);
  EXPECT_TRUE(read_back<float>(copy) == expected);
  EXPECT_EQ(device.counts().to_device, 4 * count) << "only the target's bytes may cross";
}

INSTANTIATE_TEST_SUITE_P(around_the_chunks, sizes_to_device, ::testing::ValuesIn(kSizes));

TEST_F(to_device, pinned_memory_may_be_written_to_as_soon_as_the_call_returns) {
  const std::int64_t count = 100000;
  const ManagedTensor pinned = allocate_pinned(device, {kDLFloat, 32}, {{count}});
  auto* values = static_cast<float*>(pinned.data());
  std::iota(values, values + count, 0.0F);
  const std::vector<float> expected(values, values + count);
  device.delay(23, 3000);
  const ManagedTensor copy = cross(pinned.tensor());
  std::fill(values, values + count, -1.0F);
  EXPECT_TRUE(read_back<float>(copy) == expected);
}

TEST_F(to_device, pinned_memory_is_converted_on_the_way) {
  const std::int64_t count = 100000;
  const ManagedTensor pinned = allocate_pinned(device, {kDLFloat, 32}, {{count}});
  std::iota(static_cast<float*>(pinned.data()), static_cast<float*>(pinned.data()) + count, 0.0F);
  std::vector<std::int32_t> expected(static_cast<std::size_t>(count));
  std::iota(expected.begin(), expected.end(), 0);
  const ManagedTensor copy = cross(pinned.tensor(), 0, {}, DType{kDLInt, 32});
  EXPECT_TRUE(read_back<std::int32_t>(copy) == expected);
}

TEST_F(to_device, a_full_pool_frees_no_buffer_before_it_is_read) {
  constexpr std::int64_t kMostKept = std::int64_t{256} << 20;
  (void)allocate_pinned(device, {kDLUInt, 8}, {{kMostKept}});
  const Stream own = device.own_stream(0);
  OnHost source({100});
  const ManagedTensor copy = while_held(0, own, [&] { return cross(source.tensor()); });
  EXPECT_EQ(device.pending(0, own), 0);
  EXPECT_EQ(read_back<float>(copy), source.values);
}

TEST_F(to_device, no_buffer_is_released_before_it_is_read) {
  const Stream own = device.own_stream(0);
  device.hold(0, own);
  OnHost source({100});
  const ManagedTensor copy = cross(source.tensor());
  while_held(0, own, [&] { release_pinned_memory(device); });
  EXPECT_EQ(read_back<float>(copy), source.values);
}

TEST_F(to_device, staging_buffers_are_not_reused_before_they_are_read) {
  const Stream own = device.own_stream(0);
  device.hold(0, own);
  std::vector<ManagedTensor> copies;
  for (int i = 0; i < 5; ++i) {
    OnHost source({100});
    source.values.assign(100, static_cast<float>(i));
    copies.push_back(cross(source.tensor()));
  }
  device.let_go(0, own);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(read_back<float>(copies[static_cast<std::size_t>(i)]),
              std::vector<float>(100, static_cast<float>(i)));
  }
  // Now that they are, the next copies need no more of them.
  const int before = device.calls(Call::kAllocateHost);
  OnHost source({100});
  (void)cross(source.tensor());
  EXPECT_EQ(device.calls(Call::kAllocateHost), before);
}

TEST_F(to_device, a_transposed_matrix_and_a_cast_cross_once) {
  OnHost source({3, 2});
  DLTensor tensor = source.tensor();
  std::int64_t shape[] = {2, 3};
  std::int64_t strides[] = {1, 2};
  tensor.shape = shape;
  tensor.strides = strides;
  const ManagedTensor copy = cross(tensor, 0, {}, DType{kDLInt, 16});
  EXPECT_THAT(read_back<std::int16_t>(copy), ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_EQ(device.counts().to_device, 12);
}

TEST_F(to_device, conjugate_bits_and_the_order_of_bytes_are_resolved_on_the_way) {
  using Complex = std::complex<float>;
  std::vector<Complex> values = {{1, 2}, {3, -4}};
  OnHost source({2});
  DLTensor tensor = source.tensor();
  tensor.data = values.data();
  tensor.dtype = DType{kDLComplex, 64}.dl();
  const ManagedTensor copy = cross(tensor, 0, {Condition::kConjBit});
  EXPECT_THAT(read_back<Complex>(copy), ElementsAre(Complex(1, -2), Complex(3, 4)));
  std::vector<std::uint16_t> swapped = {0x0102, 0x0304};
  tensor.data = swapped.data();
  tensor.dtype = DType{kDLUInt, 16}.dl();
  const ManagedTensor turned = cross(tensor, 0, {Condition::kSwappedBytes});
  EXPECT_THAT(read_back<std::uint16_t>(turned), ElementsAre(0x0201, 0x0403));
}

TEST_F(to_device, into_memory_that_is_there_in_the_order_of_the_targets_stream) {
  OnHost source({2, 3});
  OnDevice target(device, {4, 3});
  DLTensor rows = target.tensor();  // every other row
  std::int64_t shape[] = {2, 3};
  std::int64_t strides[] = {6, 1};
  rows.shape = shape;
  rows.strides = strides;
  Source described;
  describe(source.tensor(), {}, described);
  Request request;
  request.device = Device(kDLExtDev, 0);
  const Plan decided = plan(described, kOnDevice, Policy::host(), request);
  device.hold(0, stream);
  carry_out_into(decided, described, rows, stream);
  std::vector<float> now(12);
  device.load(now.data(), target.memory(), 48);
  EXPECT_EQ(now, target.values());
  device.let_go(0, stream);
  device.synchronise(0, stream);
  device.load(now.data(), target.memory(), 48);
  EXPECT_THAT(now, ElementsAre(0, 1, 2, 3, 4, 5, 3, 4, 5, 9, 10, 11));
}

TEST_F(to_device, a_copy_within_a_device_waits_for_both_streams_and_for_no_host) {
  OnDevice source(device, {2, 3});
  device.hold(0, stream);
  source.store_later(stream);
  Source described;
  describe(source.tensor(), stream, described);
  const Plan decided = plan(described, kOnDevice, Policy::snapshot());
  EXPECT_FALSE(decided.is_refused());
  const ManagedTensor copy = carry_out(decided, described);  // did not wait
  // Time enough to read too early.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_GT(device.pending(0, device.own_stream(0)), 0);
  // What the producer does next comes after the copy has read.
  device.store_later(0, source.memory(), std::vector<std::byte>(source.bytes()), stream);
  device.let_go(0, stream);
  EXPECT_EQ(read_back<float>(copy), source.values());
  device.synchronise(0, stream);
  EXPECT_EQ(device.counts().to_host, 0);
  EXPECT_EQ(device.counts().kernels, 1);
}

TEST_F(to_device, a_cast_within_a_device_is_checked_where_integers_may_not_fit) {
  OnDevice source(device, {2, 3});
  source.store_later(stream);
  Source described;
  describe(source.tensor(), stream, described);
  const auto cast_to = [&](DType dtype, CastWarning& warning) {
    Request request;
    request.dtype = dtype;
    const Plan decided = plan(described, kOnDevice, Policy::host(), request);
    EXPECT_FALSE(decided.is_refused());
    return carry_out(decided.legs()[0], described, &warning);
  };
  CastWarning warning = CastWarning::kNone;
  const ManagedTensor integers = cast_to({kDLInt, 8}, warning);
  EXPECT_THAT(read_back<std::int8_t>(integers), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(warning, CastWarning::kNone);
  const auto before = device.counts();
  (void)cast_to({kDLFloat, 64}, warning);
  EXPECT_EQ(device.counts().to_host, before.to_host) << "what always fits stays on the device";

  described.tensor = integers.tensor();
  described.stream = device.own_stream(0);
  EXPECT_THAT(read_back<std::int64_t>(cast_to({kDLInt, 64}, warning)),
              ElementsAre(0, 1, 2, 3, 4, 5));
  const ManagedTensor wide = cast_to({kDLInt, 64}, warning);
  const std::vector<std::int64_t> numbers = {0, 1, 2, 300, 4, 5};
  device.synchronise(0, device.own_stream(0));
  device.store(wide.data(), numbers.data(), 6 * sizeof(std::int64_t));
  described.tensor = wide.tensor();
  try {
    (void)cast_to({kDLInt, 8}, warning);
    ADD_FAILURE() << "300 became an int8";
  } catch (const ValueOutOfRange& refused) {
    EXPECT_EQ(refused.met.value, "300");
  }
}

TEST_F(to_device, the_source_is_read_before_it_is_written_to_again) {
  OnDevice source(device, {2, 3});
  Source described;
  describe(source.tensor(), stream, described);
  const Plan decided = plan(described, kOnDevice, Policy::snapshot());
  const Stream own = device.own_stream(0);
  device.hold(0, own);
  const ManagedTensor copy = carry_out(decided, described);
  device.store_later(0, source.memory(), std::vector<std::byte>(source.bytes()), stream);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  device.let_go(0, own);
  EXPECT_EQ(read_back<float>(copy), source.values());
  device.synchronise(0, stream);
}

TEST_F(to_device, memory_goes_back_in_the_order_of_the_stream_that_uses_it) {
  OnHost source({64});
  const Stream own = device.own_stream(0);
  device.hold(0, own);
  {
    const ManagedTensor copy = cross(source.tensor());
    EXPECT_EQ(device.counts().allocations, 1);
  }
  EXPECT_EQ(device.counts().allocations, 0);  // given back, and still written to first: no fault
  device.let_go(0, own);
}

TEST_F(to_device, from_one_device_to_another_is_refused) {
  OnDevice source(device, {4});
  Source described;
  describe(source.tensor(), {}, described);
  Request request;
  request.device = Device(kDLExtDev, 1);
  const Plan decided = plan(described, kOnDevice, Policy::host(), request);
  EXPECT_TRUE(decided.refused.has(Condition::kNoWayToDevice));
}

TEST_F(to_device, a_capture_is_refused_and_not_broken) {
  OnHost source({4});
  const Stream own = device.own_stream(0);
  device.begin_capture(0, own);
  try {
    (void)cross(source.tensor());
    FAIL();
  } catch (const ConversionRefused& refused) {
    EXPECT_THAT(refused.what(), HasSubstr("captured into a graph"));
  }
  EXPECT_TRUE(device.end_capture(0, own));
}

TEST_F(to_device, many_threads_cross_both_ways_with_all_work_late) {
  device.delay(24, 500);
  std::vector<std::future<void>> all;
  for (int thread = 0; thread < 4; ++thread) {
    all.push_back(std::async(std::launch::async, [&, thread] {
      for (int i = 0; i < 5; ++i) {
        OnHost source({900 * thread + 500 * i});
        const ManagedTensor there = cross(source.tensor(), thread % 2);
        Source described;
        describe(there.tensor(), device.own_stream(thread % 2), described);
        const ManagedTensor back = carry_out(to_host(described), described);
        EXPECT_TRUE(values_of<float>(back) == source.values);
      }
    }));
  }
  for (auto& each : all) {
    each.get();
  }
}

}  // namespace
}  // namespace dlbridge::guarded
