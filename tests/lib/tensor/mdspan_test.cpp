#include "dlbridge/mdspan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "dlbridge/error.hpp"

// The standard's where the library has it, else the one of CUDA's toolkit, which follows Kokkos'.
#if defined(__cpp_lib_mdspan)
namespace spans = std;
#define DLBRIDGE_HAS_MDSPAN
#elif __has_include(<cuda/std/mdspan>)
#include <cuda/std/mdspan>
namespace spans = cuda::std;
#define DLBRIDGE_HAS_MDSPAN
#endif

#if defined(DLBRIDGE_HAS_MDSPAN)
namespace {

using dlbridge::as_mdspan;
using dlbridge::ConversionRefused;
using dlbridge::ManagedTensor;
using dlbridge::TensorView;

template <typename T, typename Extents, typename Layout = spans::layout_stride>
using Span = spans::mdspan<T, Extents, Layout>;
using Matrix = Span<float, spans::dextents<std::int64_t, 2>>;

// By brackets in C++23, by parentheses before.
template <typename From>
auto& element(const From& span, int i, int j) {
  return span.accessor().access(span.data_handle(), span.mapping()(i, j));
}

ManagedTensor six(std::initializer_list<std::int64_t> strides = {3, 1}) {
  const auto values = std::make_shared<std::vector<float>>(std::vector<float>{0, 1, 2, 3, 4, 5});
  return ManagedTensor::own(values->data(), {2, 3}, strides, values);
}

TEST(Mdspan, IsTheSameLookAtStridedMemory) {
  const ManagedTensor tensor = six({1, 2});
  const TensorView<float, 2> view(tensor);
  const auto span = as_mdspan<Matrix>(view.slice(1, 1, 3));
  EXPECT_EQ(span.data_handle(), view.data() + 2);
  EXPECT_EQ(span.extent(1), 2);
  EXPECT_EQ(element(span, 1, 1), 5);
  element(span, 1, 1) = 9;
  EXPECT_EQ(view(1, 2), 9);
  const auto fixed =
      as_mdspan<Span<const float, spans::extents<int, 2, 3>>>(TensorView<const float, 2>(view));
  EXPECT_EQ(element(fixed, 1, 2), 9);
}

TEST(Mdspan, OfALayoutWithoutStridesIsTakenWhereTheyFollow) {
  using Rows = Span<float, spans::dextents<int, 2>, spans::layout_right>;
  using Columns = Span<float, spans::dextents<int, 2>, spans::layout_left>;
  const ManagedTensor rows = six();
  const ManagedTensor columns = six({1, 2});
  EXPECT_EQ(element(as_mdspan<Rows>(TensorView<float, 2>(rows)), 1, 2), 5);
  EXPECT_EQ(element(as_mdspan<Columns>(TensorView<float, 2>(columns)), 1, 2), 5);
  EXPECT_THROW((void)as_mdspan<Columns>(TensorView<float, 2>(rows)), ConversionRefused);
  EXPECT_THROW((void)as_mdspan<Rows>(TensorView<float, 2>(rows).slice(1, 0, 2)), ConversionRefused);
  EXPECT_EQ(as_mdspan<Columns>(TensorView<float, 2>(rows).slice(0, 0, 0)).extent(0), 0);
}

TEST(Mdspan, WhatItsConstructorsLeaveUndefinedIsRefused) {
  const ManagedTensor tensor = six();
  const TensorView<float, 2> view(tensor);
  EXPECT_THROW(((void)as_mdspan<Span<float, spans::extents<int, 3, 3>>>(view)), ConversionRefused);
  const ManagedTensor expanded = six({0, 1});
  EXPECT_THROW((void)as_mdspan<Matrix>(TensorView<float, 2>(expanded)), ConversionRefused);
  const auto values = std::make_shared<std::vector<float>>(200);
  const ManagedTensor long_one = ManagedTensor::own(values->data(), {200}, values);
  const TensorView<float, 1> long_view(long_one);
  EXPECT_THROW(((void)as_mdspan<Span<float, spans::dextents<signed char, 1>>>(long_view)),
               ConversionRefused);
  const ManagedTensor reversed = ManagedTensor::own(values->data() + 3, {4}, {-1}, values);
  EXPECT_THROW(
      ((void)as_mdspan<Span<float, spans::dextents<int, 1>>>(TensorView<float, 1>(reversed))),
      ConversionRefused);
  const ManagedTensor window = ManagedTensor::own(values->data(), {3, 3}, {1, 1}, values);
  EXPECT_THROW((void)as_mdspan<Matrix>(TensorView<float, 2>(window)), ConversionRefused);
  const ManagedTensor last = ManagedTensor::own(values->data(), {2, 64}, values);
  EXPECT_THROW(
      ((void)as_mdspan<Span<float, spans::dextents<signed char, 2>>>(TensorView<float, 2>(last))),
      ConversionRefused);
  const ManagedTensor none = ManagedTensor::own(values->data(), {5, 7, 0}, {1, 1, 1}, values);
  const auto empty = as_mdspan<Span<float, spans::dextents<int, 3>>>(TensorView<float, 3>(none));
  EXPECT_GE(std::max({empty.stride(0), empty.stride(1), empty.stride(2)}), 5);
  const ManagedTensor one = ManagedTensor::own(values->data(), {1}, {-1}, values);
  EXPECT_EQ((as_mdspan<Span<float, spans::dextents<int, 1>>>(TensorView<float, 1>(one)).stride(0)),
            1);
}

struct Doubling : spans::default_accessor<float> {
  using reference = float;
  using offset_policy = Doubling;
  reference access(float* data, std::size_t i) const { return 2 * data[i]; }
};
static_assert(dlbridge::Mdspan<Matrix>);
static_assert(!dlbridge::Mdspan<
              spans::mdspan<float, spans::dextents<int, 1>, spans::layout_right, Doubling>>);

TEST(Mdspan, BecomesAManagedTensorThatKeepsItsMemory) {
  auto values = std::make_shared<std::vector<float>>(std::vector<float>{0, 1, 2, 3, 4, 5});
  const std::weak_ptr<std::vector<float>> watched = values;
  {
    const Span<const float, spans::dextents<int, 2>, spans::layout_left> span(values->data(), 2, 3);
    const ManagedTensor tensor = dlbridge::own(span, std::move(values));
    EXPECT_TRUE(tensor.readonly());
    EXPECT_EQ((TensorView<const float, 2>(tensor)(1, 2)), 5);
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
  const auto number = std::make_shared<double>(7);
  const ManagedTensor tensor =
      dlbridge::own(Span<double, spans::extents<int>, spans::layout_right>(number.get()), number);
  EXPECT_EQ(tensor.ndim(), 0);
  EXPECT_FALSE(tensor.readonly());
}

}  // namespace
#endif
