#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "dlbridge/dtype.hpp"

namespace dlbridge::torch_detail {

/// A row per number of c10::ScalarType, which torch never reassigns: later releases only append, so
/// one table serves headers that do not have all the names. No bits: not for DLPack.
struct ScalarRow {
  DType dtype;
  std::string_view name;
};
inline constexpr std::array<ScalarRow, 47> kScalarTypes = {{
    {{kDLUInt, 8}, "uint8"},
    {{kDLInt, 8}, "int8"},
    {{kDLInt, 16}, "int16"},
    {{kDLInt, 32}, "int32"},
    {{kDLInt, 64}, "int64"},
    {{kDLFloat, 16}, "float16"},
    {{kDLFloat, 32}, "float32"},
    {{kDLFloat, 64}, "float64"},
    {{kDLComplex, 32}, "complex32"},
    {{kDLComplex, 64}, "complex64"},
    {{kDLComplex, 128}, "complex128"},
    {{kDLBool, 8}, "bool"},
    {{0, 0}, "qint8"},
    {{0, 0}, "quint8"},
    {{0, 0}, "qint32"},
    {{kDLBfloat, 16}, "bfloat16"},
    {{0, 0}, "quint4x2"},
    {{0, 0}, "quint2x4"},
    {{0, 0}, "bits1x8"},
    {{0, 0}, "bits2x4"},
    {{0, 0}, "bits4x2"},
    {{0, 0}, "bits8"},
    {{0, 0}, "bits16"},
    {{kDLFloat8_e5m2, 8}, "float8_e5m2"},
    {{kDLFloat8_e4m3fn, 8}, "float8_e4m3fn"},
    {{kDLFloat8_e5m2fnuz, 8}, "float8_e5m2fnuz"},
    {{kDLFloat8_e4m3fnuz, 8}, "float8_e4m3fnuz"},
    {{kDLUInt, 16}, "uint16"},
    {{kDLUInt, 32}, "uint32"},
    {{kDLUInt, 64}, "uint64"},
    {{0, 0}, "uint1"},
    {{0, 0}, "uint2"},
    {{0, 0}, "uint3"},
    {{0, 0}, "uint4"},
    {{0, 0}, "uint5"},
    {{0, 0}, "uint6"},
    {{0, 0}, "uint7"},
    {{0, 0}, "int1"},
    {{0, 0}, "int2"},
    {{0, 0}, "int3"},
    {{0, 0}, "int4"},
    {{0, 0}, "int5"},
    {{0, 0}, "int6"},
    {{0, 0}, "int7"},
    {{kDLFloat8_e8m0fnu, 8}, "float8_e8m0fnu"},
    {{kDLFloat4_e2m1fn, 4, 2}, "float4_e2m1fn_x2"},
    {{0, 0}, "bcomplex32"},
}};
inline constexpr int kFirstNarrowInteger = 30;
inline constexpr int kLastNarrowInteger = 43;

/// What this torch can hold of them: older releases end earlier.
inline constexpr int kScalarTypesHere = [] {
  constexpr int here = static_cast<int>(c10::ScalarType::Undefined);
  return here < static_cast<int>(kScalarTypes.size()) ? here
                                                      : static_cast<int>(kScalarTypes.size());
}();

// The way back, by the core's row; -1 where this torch has no such type.
inline constexpr std::array<std::int8_t, kNamedDTypes.size()> kScalarTypeOfRow = [] {
  std::array<std::int8_t, kNamedDTypes.size()> rows{};
  rows.fill(-1);
  for (int i = 0; i < kScalarTypesHere; ++i) {
    if (const DType dtype = kScalarTypes[static_cast<std::size_t>(i)].dtype; dtype.bits != 0) {
      rows[static_cast<std::size_t>(index_of(dtype))] = static_cast<std::int8_t>(i);
    }
  }
  return rows;
}();

inline std::optional<c10::ScalarType> scalar_type_of(DType dtype) {
  const int row = index_of(dtype);
  const int type = row < 0 ? -1 : kScalarTypeOfRow[static_cast<std::size_t>(row)];
  return type < 0 ? std::nullopt : std::optional(static_cast<c10::ScalarType>(type));
}

inline constexpr DTypeSet kTypesHere = [] {
  DTypeSet set;
  for (int i = 0; i < kScalarTypesHere; ++i) {
    const auto& row = kScalarTypes[static_cast<std::size_t>(i)];
    if (row.dtype.bits != 0) {
      set = set | DTypeSet::of_name(row.name);
    }
  }
  return set;
}();

}  // namespace dlbridge::torch_detail
