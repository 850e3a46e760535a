#pragma once

// CUDA's element types, for views: DeviceView<__half, 2>. Needs the toolkit's headers only.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_types.h>

#include "dlbridge/element_type.hpp"

namespace dlbridge {

template <>
struct ElementType<__half> {
  static constexpr DType kDType{kDLFloat, 16};
};
template <>
struct ElementType<__nv_bfloat16> {
  static constexpr DType kDType{kDLBfloat, 16};
};
template <>
struct ElementType<__nv_fp8_e4m3> {
  static constexpr DType kDType{kDLFloat8_e4m3fn, 8};
};
template <>
struct ElementType<__nv_fp8_e5m2> {
  static constexpr DType kDType{kDLFloat8_e5m2, 8};
};
// As cuComplex and cuDoubleComplex are.
template <>
struct ElementType<float2> {
  static constexpr DType kDType{kDLComplex, 64};
};
template <>
struct ElementType<double2> {
  static constexpr DType kDType{kDLComplex, 128};
};

}  // namespace dlbridge
