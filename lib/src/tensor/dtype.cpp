#include "dlbridge/dtype.hpp"

namespace dlbridge {
namespace {

constexpr bool every_row_is_found_again() {
  for (std::size_t i = 0; i < kNamedDTypes.size(); ++i) {
    if (index_of(kNamedDTypes[i].dtype) != static_cast<int>(i) ||
        dtype_named(kNamedDTypes[i].name) != kNamedDTypes[i].dtype) {
      return false;
    }
  }
  return kNamedDTypes.size() < 64;
}
static_assert(every_row_is_found_again(), "a type or a name stands twice in the table");

}  // namespace

std::string to_string(DType dtype) {
  if (const int index = index_of(dtype); index >= 0) {
    return std::string(kNamedDTypes[static_cast<std::size_t>(index)].name);
  }
  if (dtype.lanes > 1) {
    if (const int index = index_of({dtype.code, dtype.bits}); index >= 0) {
      return std::string(kNamedDTypes[static_cast<std::size_t>(index)].name) + "x" +
             std::to_string(dtype.lanes);
    }
  }
  return "dtype(code=" + std::to_string(dtype.code) + ", bits=" + std::to_string(dtype.bits) +
         ", lanes=" + std::to_string(dtype.lanes) + ")";
}

std::string_view dtype_fault(DType dtype) noexcept {
  if (dtype.code > kDLFloat4_e2m1fn) {
    return "DLPack 1.3 has no such type code";
  }
  if (dtype.bits == 0) {
    return "its elements have no bits";
  }
  if (dtype.lanes == 0) {
    return "its elements have no lanes";
  }
  // The narrow floats have their width in their name; any other width contradicts the code.
  if (dtype.code >= kDLFloat8_e3m4 && dtype.code <= kDLFloat8_e8m0fnu && dtype.bits != 8) {
    return "a float8 has 8 bits";
  }
  if ((dtype.code == kDLFloat6_e2m3fn || dtype.code == kDLFloat6_e3m2fn) && dtype.bits != 6) {
    return "a float6 has 6 bits";
  }
  if (dtype.code == kDLFloat4_e2m1fn && dtype.bits != 4) {
    return "a float4 has 4 bits";
  }
  return {};
}

}  // namespace dlbridge
