#include "dlbridge/tensor_view.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <complex>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Versioned;
using ::testing::StrEq;
using ::testing::ThrowsMessage;

// A view of a temporary must not compile; of what stays it must.
static_assert(std::is_constructible_v<TensorView<float, 2>, ManagedTensor&>);
static_assert(std::is_constructible_v<TensorView<float, 2>, const ManagedTensor&>);
static_assert(!std::is_constructible_v<TensorView<float, 2>, ManagedTensor>);
static_assert(!std::is_convertible_v<ManagedTensor&, TensorView<float, 2>>);
static_assert(std::is_trivially_copyable_v<TensorView<float, 2>>);

// Nor may an index of another rank.
template <typename View, typename... Index>
concept Indexed = requires(const View& view, Index... index) {
  view(index...);
};
static_assert(Indexed<TensorView<float, 2>, int, int>);
static_assert(!Indexed<TensorView<float, 2>, int>);
static_assert(!Indexed<TensorView<float, 2>, int, int, int>);
static_assert(!Indexed<TensorView<float, 2>, int, const char*>);
static_assert(Indexed<TensorView<float, 0>>);

// A view of const elements gives no way to write.
static_assert(
    std::is_same_v<decltype(std::declval<TensorView<const float, 1>>()(0)), const float&>);
static_assert(
    std::is_same_v<decltype(std::declval<TensorView<const float, 1>>().data()), const float*>);

static_assert(dtype_of<bool>() == DType(kDLBool, 8));
static_assert(dtype_of<std::int8_t>() == DType(kDLInt, 8));
static_assert(dtype_of<std::uint16_t>() == DType(kDLUInt, 16));
static_assert(dtype_of<long long>() == DType(kDLInt, 64));
static_assert(dtype_of<const float>() == DType(kDLFloat, 32));
static_assert(dtype_of<double>() == DType(kDLFloat, 64));
static_assert(dtype_of<std::complex<float>>() == DType(kDLComplex, 64));
static_assert(dtype_of<std::complex<double>>() == DType(kDLComplex, 128));
static_assert(!Element<std::complex<long double>> && !Element<std::vector<float>>);

// As Eigen's matrices are.
struct NumbersWithParts {
  using value_type = float;
  [[nodiscard]] std::vector<float> imag() const;
};
static_assert(!Element<NumbersWithParts>);

class View : public ::testing::Test {
 protected:
  Versioned producer{{2, 3}};
  ManagedTensor take() { return ManagedTensor::adopt(&producer.managed); }
};

TEST_F(View, reads_and_writes_the_elements) {
  const ManagedTensor tensor = take();
  const TensorView<float, 2> view(tensor);
  EXPECT_EQ(view(1, 2), 5.0F);
  view(1, 2) = 50.0F;
  EXPECT_EQ(producer.memory[5], 50.0F);
  EXPECT_EQ(view.rank(), 2U);
  EXPECT_EQ(view.extent(1), 3);
  EXPECT_EQ(view.stride(0), 3);
  EXPECT_EQ(view.size(), 6);
  EXPECT_EQ(view.data(), producer.memory.data());
}

TEST_F(View, follows_any_strides) {
  producer.strides = {1, -2};
  producer.tensor().strides = producer.strides.data();
  producer.tensor().byte_offset = 16;
  const ManagedTensor tensor = take();
  const TensorView<const float, 2> view(tensor);
  EXPECT_EQ(view(0, 0), 4.0F);
  EXPECT_EQ(view(1, 0), 5.0F);
  EXPECT_EQ(view(1, 2), 1.0F);
}

TEST_F(View, keeps_its_extents_beside_the_tensor) {
  ManagedTensor tensor = take();
  const TensorView<float, 2> view(tensor);
  const ManagedTensor elsewhere = std::move(tensor);
  EXPECT_EQ(view(1, 2), 5.0F);  // the memory is alive, wherever its owner went
}

TEST_F(View, checks_the_index_when_asked) {
  const ManagedTensor tensor = take();
  const TensorView<float, 2> view(tensor);
  EXPECT_EQ(view.at(1, 2), 5.0F);
  EXPECT_THAT([&] { (void)view.at(1, 3); },
              ThrowsMessage<std::out_of_range>(StrEq("index 3 in dimension 1 of size 3")));
  EXPECT_THAT([&] { (void)view.at(-1, 0); },
              ThrowsMessage<std::out_of_range>(StrEq("index -1 in dimension 0 of size 2")));
}

TEST_F(View, refuses_another_type) {
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<double, 2>(tensor)); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot look at a managed tensor of dtype float32 (the view reads "
                        "float64); use a view of float32, or to_managed<DLPack>(x, "
                        "managed_tensor_capabilities(), {}, Request{.dtype = "
                        "dtype_named(\"float64\")}) to cast")));
  try {  // which does not hold every value: no cast is named
    (TensorView<std::int32_t, 2>(tensor));
    FAIL() << "a view of another type";
  } catch (const ConversionRefused& refused) {
    EXPECT_EQ(refused.fix, "a view of float32");
  }
}

// No type of C++ is as small as that, so neither is there a view.
TEST_F(View, of_elements_below_a_byte_is_refused_without_advice) {
  const ManagedTensor tensor = ManagedTensor::allocate(DType{kDLInt, 4}, {2});
  const auto fix_of = [](auto&& look) {
    try {
      look();
    } catch (const ConversionRefused& refused) {
      return refused.fix;
    }
    return std::string("taken");
  };
  EXPECT_EQ(fix_of([&] { (void)TensorView<const std::int8_t, 1>(tensor); }), "");
  EXPECT_EQ(fix_of([&] { visit(tensor, [](const auto&) {}); }), "");
}

TEST_F(View, refuses_another_rank) {
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<float, 1>(tensor)); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot look at a managed tensor of 2 dimensions (the view has 1); use a "
                        "view of kDynamicRank")));
}

TEST_F(View, refuses_memory_that_the_processor_cannot_read) {
  producer.tensor().device = {kDLCUDA, 0};
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<float, 2>(tensor)); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot look at a managed tensor on cuda:0 (the view reads host memory); "
                        "use a DeviceView, or to_managed<DLPack>(x, managed_tensor_capabilities(), "
                        "{}, Request{.device = Device{}}) where the device has a runtime")));
}

TEST_F(View, reads_pinned_and_managed_memory) {
  producer.tensor().device = {kDLCUDAManaged, 0};
  const ManagedTensor tensor = take();
  EXPECT_EQ((TensorView<float, 2>(tensor)(0, 1)), 1.0F);
}

TEST_F(View, of_read_only_memory_has_const_elements_or_is_refused) {
  ManagedTensor tensor = take();
  tensor.mark_read_only();
  EXPECT_EQ((TensorView<const float, 2>(tensor)(1, 0)), 3.0F);
  try {
    (TensorView<float, 2>(tensor));
    FAIL() << "a writable view of read-only memory";
  } catch (const ConversionRefused& refused) {
    EXPECT_STREQ(refused.what(),
                 "cannot look at a managed tensor that nobody may write to (the view writes); use "
                 "a view of const elements, or to_managed<DLPack>(x, "
                 "managed_tensor_capabilities(), Policy::snapshot()) for a copy");
    EXPECT_THAT(refused.reasons, ::testing::ElementsAre(
                                     "a managed tensor that nobody may write to: the view writes"));
  }
}

TEST_F(View, refuses_an_unaligned_address) {
  producer.tensor().byte_offset = 2;
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<float, 2>(tensor)); },
              ThrowsMessage<ConversionRefused>(StrEq(
                  "cannot look at a managed tensor at an unaligned address (a float32 needs 4 "
                  "bytes); use to_managed<DLPack>(x, managed_tensor_capabilities(), "
                  "Policy::snapshot()) for a copy")));
}

TEST_F(View, of_no_dimensions_has_one_element) {
  Versioned scalar(std::vector<std::int64_t>{});
  const ManagedTensor tensor = ManagedTensor::adopt(&scalar.managed);
  const TensorView<float, 0> view(tensor);
  EXPECT_EQ(view.size(), 1);
  EXPECT_EQ(view(), 0.0F);
}

TEST_F(View, of_no_elements_may_have_no_address) {
  Versioned empty({0});
  empty.tensor().data = nullptr;
  const ManagedTensor tensor = ManagedTensor::adopt(&empty.managed);
  const TensorView<float, 1> view(tensor);
  EXPECT_EQ(view.size(), 0);
  EXPECT_THROW((void)view.at(0), std::out_of_range);
}

TEST_F(View, of_no_elements_may_lie_anywhere) {
  Versioned empty({0});
  empty.tensor().data = reinterpret_cast<void*>(1);
  const ManagedTensor tensor = ManagedTensor::adopt(&empty.managed);
  EXPECT_EQ((TensorView<float, 1>(tensor).size()), 0);
}

TEST_F(View, of_no_elements_may_have_any_other_sizes) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  Versioned empty({kMost, kMost, 0});
  empty.strides = {kMost, -kMost, 1};
  empty.tensor().data = nullptr;
  const ManagedTensor tensor = ManagedTensor::adopt(&empty.managed);
  const TensorView<const float, 3> view(tensor);
  EXPECT_EQ(view.size(), 0);
  EXPECT_TRUE(view.is_contiguous());
  EXPECT_TRUE(view.as_span().empty());
  EXPECT_TRUE(view.begin() == view.end());
  EXPECT_EQ(view[kMost - 1].size(), 0);
  EXPECT_EQ(view.slice(1, 3, kMost).size(), 0);
  const TensorView<const float, kDynamicRank> any(tensor);
  EXPECT_EQ(any[2].size(), 0);
}

TEST_F(View, of_an_empty_tensor_is_refused) {
  const ManagedTensor empty;
  const auto look = [&] { (void)TensorView<float, 1>(empty); };
  EXPECT_THAT(look, ThrowsMessage<ConversionRefused>(
                        StrEq("cannot look at a managed tensor that is empty (nothing was put in, "
                              "or it was moved from)")));
  EXPECT_THROW((void)(DeviceView<float, 1>(empty)), ConversionRefused);
  EXPECT_THROW((void)visit(empty, [](auto view) { return view.size(); }), ConversionRefused);
}

TEST_F(View, that_writes_is_one_that_reads) {
  static_assert(std::is_convertible_v<TensorView<float, 2>, TensorView<const float, 2>>);
  static_assert(!std::is_convertible_v<TensorView<const float, 2>, TensorView<float, 2>>);
  static_assert(!std::is_convertible_v<TensorView<float, 2>, TensorView<const double, 2>>);
  const ManagedTensor tensor = take();
  const TensorView<float, 2> writing(tensor);
  const TensorView<const float, 2> reading = writing;
  writing(1, 1) = 7;
  EXPECT_EQ(reading(1, 1), 7);
}

TEST_F(View, goes_over_its_elements_in_c_order) {
  producer.strides = {1, 2};
  const ManagedTensor tensor = take();
  const TensorView<const float, 2> view(tensor);
  EXPECT_THAT(std::vector<float>(view.begin(), view.end()),
              ::testing::ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_FALSE(view.is_contiguous());
  EXPECT_THROW((void)view.as_span(), ConversionRefused);
  EXPECT_THAT(view[1].slice(0, 1, 3), ::testing::ElementsAre(3, 5));
  static_assert(std::forward_iterator<TensorView<float, 2>::Iterator>);
}

// Of which UndefinedBehaviorSanitizer is the judge.
TEST_F(View, goes_over_dimensions_of_one_element_whatever_their_stride) {
  std::array<float, 3> values{0, 1, 2};
  for (const std::int64_t stride : {INT64_MAX / 64, INT64_MIN / 64}) {
    const auto tensor = ManagedTensor::own(values.data(), {1, 3, 1}, {stride, 1, stride}, nullptr);
    const TensorView<const float, 3> view(tensor);
    EXPECT_THAT(std::vector<float>(view.begin(), view.end()), ::testing::ElementsAre(0, 1, 2));
  }
}

TEST_F(View, of_a_slice_shows_a_part) {
  const ManagedTensor tensor = take();
  const TensorView<float, 2> view(tensor);
  EXPECT_TRUE(view.is_contiguous());
  EXPECT_THAT(view.as_span(), ::testing::ElementsAre(0, 1, 2, 3, 4, 5));
  const TensorView<float, 1> row = view[1];
  EXPECT_THAT(row.as_span(), ::testing::ElementsAre(3, 4, 5));
  const auto right = view.slice(1, 1, 3);
  EXPECT_THAT(right, ::testing::ElementsAre(1, 2, 4, 5));
  EXPECT_FALSE(right.is_contiguous());
  EXPECT_EQ(view.slice(1, 3, 3).size(), 0);
  EXPECT_EQ(view[0][2](), 2);
  for (const auto& [first, end] : {std::pair(-1, 2), std::pair(2, 1), std::pair(0, 4)}) {
    EXPECT_THROW((void)view.slice(1, first, end), std::out_of_range);
  }
  EXPECT_THROW((void)view.slice(2, 0, 1), std::out_of_range);
}

TEST_F(View, of_a_dynamic_rank_takes_any) {
  const ManagedTensor tensor = take();
  const TensorView<const float, kDynamicRank> view(tensor);
  EXPECT_EQ(view.rank(), 2U);
  EXPECT_EQ(view(1, 2), 5);
  EXPECT_EQ(view[1](2), 5);
  EXPECT_EQ(view.at(1, 2), 5);
  EXPECT_THROW((void)view.at(1), std::out_of_range);
  EXPECT_THROW((void)view.at(2, 0), std::out_of_range);
  EXPECT_THAT(view, ::testing::ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_TRUE(view.is_contiguous());
}

TEST_F(View, is_visited_by_the_type_of_its_elements) {
  const auto bytes = [](auto view) { return sizeof(*view.data()) * view.rank(); };
  const ManagedTensor tensor = take();
  EXPECT_EQ(visit(tensor, bytes), 8U);
  EXPECT_EQ(visit<2>(tensor, bytes), 8U);
  EXPECT_THROW((void)visit<1>(tensor, bytes), ConversionRefused);
  const ManagedTensor half = ManagedTensor::allocate(DType(kDLBfloat, 16), {2});
  EXPECT_THROW((void)visit(half, bytes), ConversionRefused);
  EXPECT_EQ(visit(ManagedTensor::allocate(dtype_of<std::complex<double>>(), {1}), bytes), 16U);
}

TEST_F(View, of_a_devices_memory_names_its_stream_and_reads_nothing) {
  EXPECT_THROW(
      {
        const ManagedTensor host = ManagedTensor::allocate(dtype_of<float>(), {2});
        (void)(DeviceView<float, 1>(host));
      },
      ConversionRefused);
  producer.tensor().device = Device(kDLCUDA, 1).dl();
  const ManagedTensor tensor = take();
  const DeviceView<float, 2> view(tensor);
  EXPECT_EQ(view.data(), producer.tensor().data);
  EXPECT_EQ(view.device(), Device(kDLCUDA, 1));
  EXPECT_EQ(view.stream(), managed_stream(view.device()));
}

}  // namespace
}  // namespace dlbridge

namespace mine {
struct Half {
  std::uint16_t bits;
};
}  // namespace mine

template <>
struct dlbridge::ElementType<mine::Half> {
  static constexpr DType kDType{kDLFloat, 16};
};

namespace dlbridge {
namespace {

static_assert(dtype_of<std::byte>() == DType(kDLUInt, 8));
static_assert(Element<const mine::Half> && !Element<std::string> && !Element<long double>);

TEST(ElementType, may_be_added_by_whoever_has_it) {
  const ManagedTensor tensor = ManagedTensor::own(std::vector<mine::Half>{{1}, {2}});
  EXPECT_EQ(tensor.dtype(), DType(kDLFloat, 16));
  const TensorView<const mine::Half, 1> view(tensor);
  EXPECT_EQ(view(1).bits, 2);
}

}  // namespace
}  // namespace dlbridge
