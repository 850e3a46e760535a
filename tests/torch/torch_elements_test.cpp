// Views whose elements are of c10's types: each reads what torch wrote.

#include "dlbridge/torch_elements.hpp"

#include <gtest/gtest.h>

#include <utility>

#include "dlbridge/tensor_view.hpp"
#include "torch/torch_doubles.hpp"

namespace dlbridge {
namespace {

template <typename Element>
class Elements : public ::testing::Test {};
using Types = ::testing::Types<c10::Half, c10::BFloat16, c10::Float8_e4m3fn, c10::Float8_e4m3fnuz,
                               c10::Float8_e5m2, c10::Float8_e5m2fnuz, c10::complex<float>,
                               c10::complex<double>, c10::complex<c10::Half>>;
TYPED_TEST_SUITE(Elements, Types);

TYPED_TEST(Elements, are_those_that_torch_wrote) {
  const at::Tensor tensor =
      at::arange(4, at::kFloat).to(c10::CppTypeToScalarType<TypeParam>::value);
  const ManagedTensor managed = to_managed<Torch>(tensor, managed_tensor_capabilities());
  const TensorView<const TypeParam, 1> view(managed);
  float expected = 0;
  for (const TypeParam element : view) {
    EXPECT_TRUE(element == TypeParam(expected)) << expected;
    ++expected;
  }
  EXPECT_EQ(expected, 4);
}

}  // namespace
}  // namespace dlbridge
