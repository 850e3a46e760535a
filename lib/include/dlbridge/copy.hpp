#pragma once

#include <cstdint>

#include "dlbridge/dtype.hpp"

namespace dlbridge {

/// One pass over host memory: reads every element of the source once, writes every element of the
/// target once, with all that the plan asks for done on the way.
///
/// Borrows everything; the caller keeps both memories alive. `source` and `target` point at the
/// element of index zero (a negative stride reaches below it) and must not overlap.
struct CopyJob {
  std::int32_t ndim = 0;
  const std::int64_t* shape = nullptr;                 // elements; every one >= 0
  const void* source = nullptr;                        // any alignment
  const std::int64_t* source_strides_bytes = nullptr;  // any sign, any value, zero included
  void* target = nullptr;
  const std::int64_t* target_strides_bytes = nullptr;
  DType source_dtype{};
  DType target_dtype{};
  bool conjugate = false;   // complex types only; ignored for others
  bool negate = false;      // parts of 1, 2, 4 or 8 bytes only, as with conjugate; others stay
  bool swap_bytes = false;  // the source's bytes are in the order that the machine does not use
};

/// Whether copy_elements can turn one type into the other. Equal types of whole bytes always can,
/// also types that have no name. Complex to real cannot: the imaginary part would be lost.
[[nodiscard]] bool can_cast(DType from, DType to) noexcept;

/// Whether every value of the one has its like in the other, but for precision: copy_elements()
/// then never returns false. Precondition: can_cast(from, to).
[[nodiscard]] bool always_fits(DType from, DType to) noexcept;

/// Carries out the job. Conversions follow C++ (and NumPy's astype): rounding to nearest even into
/// narrower floats, truncation into integers. What does not fit an integer is not undefined here:
/// it becomes what NumPy on x86 makes of it. Floats go to int64, uint64 and uint32 by way of int64,
/// to the others by way of int32, whose least stands for what it lacks.
/// False where it met a value that the target's type cannot hold: an integer that wrapped, a float
/// that is no integer of that type, or a finite one that did not stay finite.
/// Throws nothing but std::bad_alloc.
/// Precondition: can_cast(source_dtype, target_dtype), and whole-byte types.
/// Runs on the calling thread and, above a measured size, on helpers that end before it returns.
bool copy_elements(const CopyJob& job);

}  // namespace dlbridge
