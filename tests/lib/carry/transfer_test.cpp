// carry_out(): what a plan that copies makes of memory on the host. Each against elements that are
// read one by one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <vector>

#include "dlbridge/carry.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/error.hpp"
#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using cases::as_type;
using cases::Described;
using cases::kHostOnly;
using cases::outcome;
using cases::Spec;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::StrEq;
using ::testing::ThrowsMessage;

template <typename T>
Spec over(std::vector<T>& memory, DType dtype, std::vector<std::int64_t> shape,
          std::vector<std::int64_t> strides, std::int64_t first = 0) {
  Spec spec;
  spec.dtype = dtype;
  spec.shape = std::move(shape);
  spec.strides = std::move(strides);
  spec.address = reinterpret_cast<std::uintptr_t>(memory.data() + first);
  return spec;
}

// Plans and carries out; everything that holds for any copy is checked here.
ManagedTensor copy_of(const Spec& spec, const Policy& policy = Policy::snapshot(),
                      const Request& request = {}, const Capabilities& target = kHostOnly) {
  const Described described(spec);
  const Plan plan = dlbridge::plan(described.source(), target, policy, request);
  EXPECT_EQ(outcome(plan), 'C');
  ManagedTensor copy = carry_out(plan, described.source());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(copy.data()) % 64, 0U);
  EXPECT_TRUE(is_c_contiguous(copy.tensor()));
  EXPECT_EQ(copy.flags(), std::uint64_t{DLPACK_FLAG_BITMASK_IS_COPIED});
  EXPECT_EQ(copy.dtype(), plan.dtype);
  EXPECT_EQ(copy.device(), Device{});
  EXPECT_EQ(std::vector(copy.shape().begin(), copy.shape().end()), spec.shape);
  EXPECT_EQ(byte_count(copy.tensor()), plan.bytes_copied);
  return copy;
}

template <typename T>
std::vector<T> elements(const ManagedTensor& tensor) {
  const auto* data = static_cast<const T*>(tensor.data());
  return {data, data + element_count(tensor.tensor())};
}

TEST(CarryOut, repacks_any_strides_into_c_order) {
  std::vector<float> memory{0, 1, 2, 3, 4, 5};
  const DType f32{kDLFloat, 32};
  EXPECT_THAT(elements<float>(copy_of(over(memory, f32, {2, 3}, {3, 1}))),
              ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(elements<float>(copy_of(over(memory, f32, {3, 2}, {1, 3}))),
              ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(elements<float>(copy_of(over(memory, f32, {3}, {-2}, 5))), ElementsAre(5, 3, 1));
  EXPECT_THAT(elements<float>(copy_of(over(memory, f32, {2, 2}, {0, 1}))), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(elements<float>(copy_of(over(memory, f32, {4, 3}, {1, 1}))),
              ElementsAre(0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5));
  EXPECT_THAT(elements<float>(copy_of(over(memory, f32, {}, {}, 4))), ElementsAre(4));
}

TEST(CarryOut, leaves_its_source_as_it_was) {
  std::vector<float> memory{0, 1, 2, 3};
  const ManagedTensor copy = copy_of(over(memory, {kDLFloat, 32}, {2, 2}, {1, 2}));
  static_cast<float*>(copy.data())[0] = 9.0F;
  EXPECT_THAT(memory, ElementsAre(0, 1, 2, 3));
}

TEST(CarryOut, makes_an_empty_tensor_without_looking_at_memory) {
  Spec spec;
  spec.shape = {3, 0};
  spec.strides = {0, 1};
  spec.address = 0;
  EXPECT_NE(copy_of(spec).data(), nullptr);
  spec.conditions = {Condition::kConjBit};
  EXPECT_NE(copy_of(spec).data(), nullptr);
}

TEST(CarryOut, applies_the_byte_offset) {
  std::vector<float> memory{0, 1, 2, 3};
  Spec spec = over(memory, {kDLFloat, 32}, {2}, {1});
  spec.byte_offset = 8;
  EXPECT_THAT(elements<float>(copy_of(spec)), ElementsAre(2, 3));
}

TEST(CarryOut, reads_missing_strides_as_c_order) {
  std::vector<float> memory{0, 1, 2, 3};
  std::array<std::int64_t, 2> shape{2, 2};
  Source source;
  source.traits.library = &cases::kShelf;
  source.tensor.data = memory.data();
  source.tensor.device = Device{}.dl();
  source.tensor.dtype = DType(kDLFloat, 32).dl();
  source.tensor.ndim = 2;
  source.tensor.shape = shape.data();
  const Plan plan = dlbridge::plan(source, kHostOnly, Policy::snapshot());
  EXPECT_THAT(elements<float>(carry_out(plan, source)), ElementsAre(0, 1, 2, 3));
}

TEST(CarryOut, conjugates_complex_elements) {
  std::vector<std::complex<float>> memory{{1, 2}, {3, -4}, {0, 0.0F}};
  Spec spec = over(memory, {kDLComplex, 64}, {3}, {1});
  spec.conditions = {Condition::kConjBit};
  const auto values = elements<std::complex<float>>(copy_of(spec, Policy::host()));
  EXPECT_THAT(values, ElementsAre(std::complex<float>(1, -2), std::complex<float>(3, 4),
                                  std::complex<float>(0, 0)));
  EXPECT_TRUE(std::signbit(values[2].imag()));
}

TEST(CarryOut, negates_real_and_complex_elements) {
  std::vector<double> memory{1, -2, 0};
  Spec spec = over(memory, {kDLFloat, 64}, {3}, {1});
  spec.conditions = {Condition::kNegBit};
  EXPECT_THAT(elements<double>(copy_of(spec, Policy::host())), ElementsAre(-1, 2, 0));
  std::vector<std::complex<double>> pairs{{1, -2}};
  Spec both = over(pairs, {kDLComplex, 128}, {1}, {1});
  both.conditions = {Condition::kNegBit, Condition::kConjBit};
  EXPECT_THAT(elements<std::complex<double>>(copy_of(both, Policy::host())),
              ElementsAre(std::complex<double>(-1, -2)));
}

TEST(CarryOut, negates_integers_as_they_wrap) {
  std::vector<std::int32_t> memory{1, -7, std::numeric_limits<std::int32_t>::min()};
  Spec spec = over(memory, {kDLInt, 32}, {3}, {1});
  spec.conditions = {Condition::kNegBit};
  EXPECT_THAT(elements<std::int32_t>(copy_of(spec, Policy::host())),
              ElementsAre(-1, 7, std::numeric_limits<std::int32_t>::min()));
}

TEST(CarryOut, swaps_the_bytes_of_every_width) {
  std::vector<std::uint16_t> halves{0x0102};
  std::vector<std::uint32_t> words{0x01020304};
  std::vector<std::uint64_t> longs{0x0102030405060708};
  std::vector<std::uint64_t> pairs{0x0102030405060708, 0x1112131415161718};
  const auto swapped = [](auto& memory, DType dtype) {
    Spec spec = over(memory, dtype, {1}, {1});
    spec.conditions = {Condition::kSwappedBytes};
    return copy_of(spec, Policy::host());
  };
  EXPECT_THAT(elements<std::uint16_t>(swapped(halves, {kDLUInt, 16})), ElementsAre(0x0201));
  EXPECT_THAT(elements<std::uint32_t>(swapped(words, {kDLFloat, 32})), ElementsAre(0x04030201));
  EXPECT_THAT(elements<std::uint64_t>(swapped(longs, {kDLInt, 64})),
              ElementsAre(0x0807060504030201));
  // A complex element is two numbers, each with its bytes in the other order.
  const auto complex = swapped(pairs, {kDLComplex, 128});
  std::array<std::uint64_t, 2> parts{};
  std::memcpy(parts.data(), complex.data(), sizeof(parts));
  EXPECT_THAT(parts, ElementsAre(0x0807060504030201, 0x1817161514131211));
}

TEST(CarryOut, casts_and_swaps_in_one_pass) {
  std::vector<std::uint32_t> memory{__builtin_bswap32(std::bit_cast<std::uint32_t>(1.5F))};
  Spec spec = over(memory, {kDLFloat, 32}, {1}, {1});
  spec.conditions = {Condition::kSwappedBytes};
  EXPECT_THAT(elements<double>(copy_of(spec, Policy::host(), as_type({kDLFloat, 64}))),
              ElementsAre(1.5));
}

TEST(CarryOut, casts_along_any_strides) {
  std::vector<float> memory{0.5F, 1.5F, -2.5F, 3.5F};
  const Spec spec = over(memory, {kDLFloat, 32}, {2, 2}, {1, 2});
  EXPECT_THAT(elements<std::int64_t>(copy_of(spec, Policy::host(), as_type({kDLInt, 64}))),
              ElementsAre(0, -2, 1, 3));
}

TEST(CarryOut, upcasts_bfloat16_exactly) {
  std::vector<std::uint16_t> memory{0x3F80, 0xC040, 0x7F80};
  const Spec spec = over(memory, {kDLBfloat, 16}, {3}, {1});
  const Policy wide = Policy::host().with(Field::kDType, Ruling::kUpcast);
  EXPECT_THAT(elements<float>(copy_of(spec, wide)),
              ElementsAre(1.0F, -3.0F, std::numeric_limits<float>::infinity()));
}

TEST(CarryOut, copies_bits_as_they_are_where_only_the_type_is_renamed) {
  std::vector<std::uint16_t> memory{0x7FC1, 0x8000};  // a NaN with a payload, and minus zero
  const Spec spec = over(memory, {kDLBfloat, 16}, {2}, {1});
  const Policy bits = Policy::snapshot().with(Field::kDType, Ruling::kBits);
  const ManagedTensor copy = copy_of(spec, bits);
  EXPECT_EQ(copy.dtype(), DType(kDLUInt, 16));
  EXPECT_THAT(elements<std::uint16_t>(copy), ElementsAre(0x7FC1, 0x8000));
}

TEST(CarryOut, reads_strides_that_are_no_multiple_of_the_element) {
  // Records of six bytes: a float and a short.
  std::vector<std::byte> memory(18);
  for (int i = 0; i < 3; ++i) {
    const float value = static_cast<float>(i) + 0.5F;
    std::memcpy(memory.data() + 6 * i, &value, sizeof(value));
  }
  const Spec spec = over(memory, {kDLFloat, 32}, {3}, {1});
  const Described described(spec);
  Source source;
  source.traits = described.source().traits;
  source.traits.conditions = {Condition::kFractionalStrides};
  source.tensor = described.source().tensor;
  const std::array<std::int64_t, 1> strides_bytes{6};
  source.byte_strides = strides_bytes.data();
  const Plan plan = dlbridge::plan(source, kHostOnly, Policy::host());
  EXPECT_EQ(outcome(plan), 'C');
  EXPECT_THAT(elements<float>(carry_out(plan, source)), ElementsAre(0.5F, 1.5F, 2.5F));
}

TEST(CarryOut, reads_from_any_address) {
  std::vector<std::byte> memory(25);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    const std::array<double, 2> values{1.25, -3.0};
    std::memcpy(memory.data() + shift, values.data(), sizeof(values));
    const Spec spec = over(memory, {kDLFloat, 64}, {2}, {1}, static_cast<std::int64_t>(shift));
    EXPECT_THAT(elements<double>(copy_of(spec)), ElementsAre(1.25, -3.0)) << shift;
  }
}

TEST(CarryOut, makes_zeros_of_a_zero_tensor_without_looking_at_memory) {
  Spec spec;
  spec.conditions = {Condition::kZeroTensor};
  spec.address = 0;
  EXPECT_THAT(elements<float>(copy_of(spec, Policy::host())), ElementsAre(0, 0, 0, 0, 0, 0));
  spec.conditions.add(Condition::kConjBit);
  spec.conditions.add(Condition::kNegBit);
  spec.dtype = DType(kDLComplex, 64);
  EXPECT_THAT(elements<float>(copy_of(spec, Policy::host())), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(elements<double>(copy_of(spec, Policy::host(), as_type({kDLComplex, 128}))),
              ElementsAre(0, 0, 0, 0, 0, 0));
}

TEST(CarryOut, makes_zeros_of_every_size_of_element) {
  for (const DType dtype : {DType(kDLInt, 4), DType(kDLUInt, 1), DType(kDLFloat, 64, 9),
                            DType(kDLFloat8_e8m0fnu, 8), DType(kDLFloat, 32, 1000)}) {
    Spec spec;
    spec.conditions = {Condition::kZeroTensor, Condition::kNegBit, Condition::kConjBit};
    spec.address = 0;
    spec.dtype = dtype;
    spec.shape = {33};
    spec.strides = {1};
    const Described described(spec);
    const Plan plan =
        dlbridge::plan(described.source(), managed_tensor_capabilities(), Policy::host());
    const ManagedTensor copy = carry_out(plan, described.source());
    const auto* bytes = static_cast<const std::uint8_t*>(copy.data());
    const std::vector<std::uint8_t> found(bytes, bytes + byte_count(copy.tensor()));
    EXPECT_THAT(found, ::testing::Each(0)) << to_string(dtype);
  }
}

TEST(CarryOut, copies_packed_elements_together) {
  std::vector<std::uint8_t> memory{0x21, 0x43, 0x05};
  const Spec spec = over(memory, *dtype_named("float4_e2m1fn"), {5}, {1});
  const Described described(spec);
  const Plan plan =
      dlbridge::plan(described.source(), managed_tensor_capabilities(), Policy::snapshot());
  const ManagedTensor copy = carry_out(plan, described.source());
  const auto* bytes = static_cast<const std::uint8_t*>(copy.data());
  EXPECT_THAT(std::vector(bytes, bytes + 3), ElementsAreArray(memory));
  EXPECT_NE(copy.flags() & DLPACK_FLAG_BITMASK_IS_COPIED, 0U);
}

TEST(CarryOut, refuses_packed_elements_that_do_not_lie_together) {
  std::vector<std::uint8_t> memory{0x21, 0x43};
  const Spec spec = over(memory, *dtype_named("float4_e2m1fn"), {2}, {2});
  const Described described(spec);
  const Plan plan =
      dlbridge::plan(described.source(), managed_tensor_capabilities(), Policy::snapshot());
  EXPECT_THAT([&] { (void)carry_out(plan, described.source()); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot copy elements of dtype float4_e2m1fn as float4_e2m1fn: they are "
                        "packed below a byte, and do not lie together")));
}

TEST(CarryOut, refuses_memory_that_the_processor_cannot_read) {
  Spec spec;
  spec.device = Device(kDLCUDA, 1);
  const Described described(spec);
  const Plan plan =
      dlbridge::plan(described.source(), managed_tensor_capabilities(), Policy::snapshot());
  EXPECT_THAT([&] { (void)carry_out(plan, described.source()); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot copy memory on cuda:1: there is no runtime for its device")));
}

TEST(CarryOut, copies_wide_vectors_of_lanes_as_they_are) {
  std::vector<float> memory{0, 1, 2, 3, 4, 5, 6, 7};
  const Spec spec = over(memory, {kDLFloat, 32, 4}, {2}, {1});
  const ManagedTensor copy = copy_of(spec, Policy::snapshot(), {}, managed_tensor_capabilities());
  const auto* values = static_cast<const float*>(copy.data());
  EXPECT_THAT(std::vector(values, values + 8), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(CarryOutView, marks_and_renames_without_touching_memory) {
  doubles::Versioned producer;
  ManagedTensor view = ManagedTensor::adopt(&producer.managed);
  Plan plan;
  plan.dtype = view.dtype();
  carry_out_view(plan, view);
  EXPECT_FALSE(view.readonly());
  EXPECT_EQ(view.dtype(), DType(kDLFloat, 32));
  plan.add(Step::kMarkReadOnly);
  plan.dtype = DType(kDLUInt, 32);
  carry_out_view(plan, view);
  EXPECT_TRUE(view.readonly());
  EXPECT_EQ(view.dtype(), DType(kDLUInt, 32));
  EXPECT_EQ(view.data(), producer.memory.data());
}

}  // namespace
}  // namespace dlbridge
