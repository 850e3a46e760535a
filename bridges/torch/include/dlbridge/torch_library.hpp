#pragma once

#include "dlbridge/capabilities.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge::torch_detail {

/// How torch's users speak, and what they would call. No torch header is needed for that.
inline constexpr Library kTorch{
    .name = "torch",
    .object = "torch.Tensor",
    .fixes = {{
        {Condition::kInGraph, "x.detach()"},
        {Condition::kForwardDual, "torch.autograd.forward_ad.unpack_dual(x).primal"},
        {Condition::kConjBit, "x.resolve_conj()"},
        {Condition::kNegBit, "x.resolve_neg()"},
        {Condition::kZeroTensor, "x.clone()"},
        {Condition::kSparse, "x.to_dense()"},
        {Condition::kOpaqueLayout, "x.to_dense()"},
        {Condition::kQuantised, "x.dequantize()"},
        {Condition::kNested, "torch.nested.to_padded_tensor(x, 0.0) (padded with zeros)"},
        {Condition::kFunctorch, "the call outside the transform"},
        {Condition::kFunctionalised, "torch._from_functional_tensor(x)"},
        {Condition::kUninitialised, "a forward pass of its module before, or x.materialize(shape)"},
        // Its rules say what is written; what they return may be of its class again.
        {Condition::kDispatchSubclass,
         "torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x)"},
        {Condition::kOverlap, "x.contiguous()"},
        {Condition::kOtherDevice, "x.cpu()"},
        {Condition::kNoWayToDevice, "x.cpu()"},
        {Condition::kMissingDType, "x.to(torch.{wide_dtype})"},
        {Condition::kCastAsked, "x.to(torch.{to_dtype})"},
        {Condition::kNoCast, "x.real (the imaginary part is lost)"},
    }},
};

/// What holds of every tensor of torch's.
inline constexpr Traits kTraits = [] {
  Traits traits;
  traits.library = &kTorch;
  traits.copies_to_host = true;
  traits.copies_there = true;
  return traits;
}();

/// What torch can take, by whatever road it is reached.
constexpr Capabilities capabilities_with(DTypeSet dtypes) {
  return {
      .name = "torch",
      .result = "torch.Tensor",
      .devices = DeviceSet::of({kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged, kDLCUDA, kDLROCM,
                                kDLOneAPI, kDLExtDev}),
      .copies_to_device = true,
      .dtypes = dtypes,
      .readonly = ReadOnlySupport::kUnaware,
      .guards_overlap = true,
      .strides = StrideSupport::kNonNegative,
  };
}

}  // namespace dlbridge::torch_detail
