#pragma once

// CUDA's element types, for views: DeviceView<__half, 2>. Needs the toolkit's headers only.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_types.h>

#include "dlbridge/element_type.hpp"

namespace dlbridge {

template <>
struct ElementType<__half> : ElementOf<kDLFloat, 16> {};
template <>
struct ElementType<__nv_bfloat16> : ElementOf<kDLBfloat, 16> {};
template <>
struct ElementType<__nv_fp8_e4m3> : ElementOf<kDLFloat8_e4m3fn, 8> {};
template <>
struct ElementType<__nv_fp8_e5m2> : ElementOf<kDLFloat8_e5m2, 8> {};
// As cuComplex and cuDoubleComplex are.
template <>
struct ElementType<float2> : ElementOf<kDLComplex, 64> {};
template <>
struct ElementType<double2> : ElementOf<kDLComplex, 128> {};

}  // namespace dlbridge
