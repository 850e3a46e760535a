#include "dlbridge/tensor_view.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <complex>
#include <stdexcept>
#include <type_traits>
#include <utility>

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
                        "float64)")));
  EXPECT_THROW((TensorView<std::int32_t, 2>(tensor)), ConversionRefused);
}

TEST_F(View, refuses_another_rank) {
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<float, 1>(tensor)); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot look at a managed tensor of 2 dimensions (the view has 1)")));
}

TEST_F(View, refuses_memory_that_the_processor_cannot_read) {
  producer.tensor().device = {kDLCUDA, 0};
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<float, 2>(tensor)); },
              ThrowsMessage<ConversionRefused>(
                  StrEq("cannot look at a managed tensor on cuda:0 (the view reads host memory)")));
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
                 "cannot look at a managed tensor that nobody may write to (take a view of const "
                 "elements)");
    EXPECT_THAT(refused.reasons,
                ::testing::ElementsAre("a managed tensor that nobody may write to: take a view of "
                                       "const elements"));
  }
}

TEST_F(View, refuses_an_unaligned_address) {
  producer.tensor().byte_offset = 2;
  const ManagedTensor tensor = take();
  EXPECT_THAT([&] { (TensorView<float, 2>(tensor)); },
              ThrowsMessage<ConversionRefused>(StrEq(
                  "cannot look at a managed tensor at an unaligned address (a float32 needs 4 "
                  "bytes)")));
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

}  // namespace
}  // namespace dlbridge
