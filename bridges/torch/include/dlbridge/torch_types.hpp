#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstddef>
#include <optional>

#include "dlbridge/torch_vocabulary.hpp"

namespace dlbridge::torch_detail {

/// What this torch can hold of the table's types: older releases end earlier.
inline constexpr std::size_t kScalarTypesHere =
    std::min(kScalarTypes.size(), static_cast<std::size_t>(c10::ScalarType::Undefined));

inline constexpr auto kTypesHere = [] {
  DTypeMap<c10::ScalarType> types(c10::ScalarType::Undefined);
  for (std::size_t i = 0; i < kScalarTypesHere; ++i) {
    if (const DType dtype = kScalarTypes[i].dtype; dtype.bits != 0) {
      types.add(dtype, static_cast<c10::ScalarType>(i));
    }
  }
  return types;
}();

inline std::optional<c10::ScalarType> scalar_type_of(DType dtype) {
  const c10::ScalarType type = kTypesHere[dtype];
  return type == c10::ScalarType::Undefined ? std::nullopt : std::optional(type);
}

}  // namespace dlbridge::torch_detail
