#pragma once

#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

/// Carries out a plan that copies, on the host: repack, cast, conjugate, negate, swap bytes and
/// materialise, all in one pass. Reads the source's memory, which the caller keeps alive meanwhile,
/// and returns memory of its own: C-contiguous, 64-byte aligned, writable, marked as copied.
/// What needs the source's library (densify, another device) the bridge has done before.
/// Throws ConversionRefused for what the host cannot copy, std::bad_alloc.
[[nodiscard]] ManagedTensor carry_out(const Plan& plan, const Source& source);

/// Makes a view what a plan without a copy says: read-only, or read as another type.
void carry_out_view(const Plan& plan, ManagedTensor& view) noexcept;

}  // namespace dlbridge
