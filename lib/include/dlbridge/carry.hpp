#pragma once

#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

/// Carries out a leg of the engine or of a runtime: repack, cast, conjugate, negate, swap bytes and
/// materialise, all in one pass, and on the way between the host and a device that has a runtime.
/// Reads the source's memory, which the caller keeps alive meanwhile, and returns memory of its own
/// where the leg ends: C-contiguous, writable, marked as copied, and on the host aligned to 64
/// bytes or to as many more as are asked for.
///
/// Work on a source that a device works on is ordered after `source.stream`; a copy on a device is
/// ordered on the runtime's own stream, where the tensor's memory also comes from.
/// A cast sets `warning`, if there is one to set, and throws ValueOutOfRange for an integer that
/// does not fit. Within a device it goes by the host where integers may not fit; from floats to
/// narrower floats it is the device's, and sets none. Throws ConversionRefused for what cannot be
/// copied so, DeviceError, std::bad_alloc.
[[nodiscard]] ManagedTensor carry_out(const Leg& leg, const Source& source,
                                      CastWarning* warning = nullptr, std::int64_t alignment = 64);

/// The same into memory that is there already: `target` has the source's shape and the leg's
/// dtype, any strides, no two elements in one place, and shares no memory with the source. Memory
/// of a device is used in the order of `stream`; when this returns, host memory is filled. Where it
/// throws, the target may have been written to.
void carry_out_into(const Leg& leg, const Source& source, const DLTensor& target,
                    Stream stream = {}, CastWarning* warning = nullptr);

/// A plan that copies as one leg, for sources of which no library has to prepare anything.
[[nodiscard]] inline ManagedTensor carry_out(const Plan& plan, const Source& source) {
  return carry_out(Leg{Who::kEngine, plan.steps, plan.dtype, plan.device}, source, nullptr,
                   plan.alignment);
}
inline void carry_out_into(const Plan& plan, const Source& source, const DLTensor& target,
                           Stream stream = {}) {
  carry_out_into(Leg{Who::kEngine, plan.steps, plan.dtype, plan.device}, source, target, stream);
}

/// Makes a view what a plan without a copy says: read-only, read as another type, or of pages that
/// are copied when they are written to, for which the system may fail (std::system_error).
void carry_out_view(const Plan& plan, ManagedTensor& view);

}  // namespace dlbridge
