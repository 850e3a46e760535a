#pragma once

// c10's element types, for views: TensorView<c10::Half, 2>.

#include <c10/util/BFloat16.h>
#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e4m3fnuz.h>
#include <c10/util/Float8_e5m2.h>
#include <c10/util/Float8_e5m2fnuz.h>
#include <c10/util/Half.h>
#include <c10/util/complex.h>

#include "dlbridge/element_type.hpp"

namespace dlbridge {

template <>
struct ElementType<c10::Half> : ElementOf<kDLFloat, 16> {};
template <>
struct ElementType<c10::BFloat16> : ElementOf<kDLBfloat, 16> {};
template <>
struct ElementType<c10::Float8_e4m3fn> : ElementOf<kDLFloat8_e4m3fn, 8> {};
template <>
struct ElementType<c10::Float8_e4m3fnuz> : ElementOf<kDLFloat8_e4m3fnuz, 8> {};
template <>
struct ElementType<c10::Float8_e5m2> : ElementOf<kDLFloat8_e5m2, 8> {};
template <>
struct ElementType<c10::Float8_e5m2fnuz> : ElementOf<kDLFloat8_e5m2fnuz, 8> {};
template <typename T>
struct ElementType<c10::complex<T>> : ElementOf<kDLComplex, 16 * sizeof(T)> {};

}  // namespace dlbridge
