#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "dlbridge/device.hpp"
#include "dlbridge/dtype.hpp"

/// What torch calls its types and devices. No torch header is needed for that.
namespace dlbridge::torch_detail {

/// In the order of c10::ScalarType, whose numbers torch never reassigns: later releases only
/// append, so one list serves headers that do not have all the names.
inline constexpr std::string_view kScalarNames =
    "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool "
    "qint8 quint8 qint32 bfloat16 quint4x2 quint2x4 bits1x8 bits2x4 bits4x2 bits8 bits16 "
    "float8_e5m2 float8_e4m3fn float8_e5m2fnuz float8_e4m3fnuz uint16 uint32 uint64 "
    "uint1 uint2 uint3 uint4 uint5 uint6 uint7 int1 int2 int3 int4 int5 int6 int7 "
    "float8_e8m0fnu float4_e2m1fn_x2 bcomplex32";

/// A type that torch and DLPack both have bears one name. No bits: not for DLPack.
struct ScalarRow {
  DType dtype;
  std::string_view name;
  bool padded = false;  // uint1 to int7: a byte for each element, where DLPack packs them
};
inline constexpr auto kScalarTypes = [] {
  std::array<ScalarRow, std::count(kScalarNames.begin(), kScalarNames.end(), ' ') + 1> rows{};
  std::string_view rest = kScalarNames;
  for (ScalarRow& row : rows) {
    row.name = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(row.name.size() + 1, rest.size()));
    const std::string_view integer = row.name.substr(row.name.starts_with('u') ? 1 : 0);
    row.padded = integer.size() == 4 && integer.starts_with("int") && integer != "int8";
    row.dtype = row.padded ? DType() : dtype_named(row.name).value_or(DType());
  }
  return rows;
}();

/// Devices by torch's name for them and the number of c10::DeviceType, which is as lasting. Builds
/// for ROCm call its devices "cuda".
struct DeviceRow {
  std::string_view name;
  std::int8_t number;
  std::int32_t type;
};
inline constexpr std::array kDeviceTypes = {
    DeviceRow{"cpu", 0, kDLCPU},
    DeviceRow{"cuda", 1, kDLCUDA},
    DeviceRow{"hip", 6, kDLROCM},
    DeviceRow{"maia", 8, kDLMAIA},
    DeviceRow{"xpu", 12, kDLOneAPI},
    DeviceRow{"mps", 13, kDLMetal},
    DeviceRow{"privateuseone", 20, kDLExtDev},
};

}  // namespace dlbridge::torch_detail
