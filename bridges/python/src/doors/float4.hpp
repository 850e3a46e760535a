#pragma once

#include "dlbridge/capabilities.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge::python {

/// DLPack has two spellings for packed float4: one element of 4 bits (JAX, ONNX Runtime), or a pair
/// in two lanes (torch). The bytes are the same; the last dimension counts elements or pairs.
/// Respells the source where the target knows only the other spelling and the elements lie in C
/// order; says whether it did. Uses the source's room.
bool respell_float4(Source& source, const Capabilities& target);

}  // namespace dlbridge::python
