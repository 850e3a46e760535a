// What the fuzz targets share: choices out of the input's bytes, and an end that libFuzzer notices.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>

#include "dlbridge/dtype.hpp"

namespace dlbridge::fuzz {

/// Ends the process with the text: libFuzzer then keeps the input.
inline void require(bool holds, const std::string& otherwise) {
  if (!holds) {
    std::fprintf(stderr, "broken: %s\n", otherwise.c_str());
    std::abort();
  }
}

template <typename Items>
const auto& one_of(FuzzedDataProvider& bytes, const Items& items) {
  return items[bytes.ConsumeIntegralInRange<std::size_t>(0, std::size(items) - 1)];
}

/// Mostly a type that has a name, now and then any triple.
inline DType any_dtype(FuzzedDataProvider& bytes) {
  if (bytes.ConsumeIntegralInRange(0, 7) != 0) {
    DType dtype = one_of(bytes, kNamedDTypes).dtype;
    if (bytes.ConsumeIntegralInRange(0, 7) == 0) {
      dtype.lanes = bytes.ConsumeIntegralInRange<std::uint16_t>(0, 9);
    }
    return dtype;
  }
  return {bytes.ConsumeIntegral<std::uint8_t>(), bytes.ConsumeIntegral<std::uint8_t>(),
          bytes.ConsumeIntegral<std::uint16_t>()};
}

}  // namespace dlbridge::fuzz
