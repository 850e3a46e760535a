#pragma once

#include "dlbridge/python.hpp"
#include "targets/managed_target.hpp"

namespace dlbridge::python {

/// A parameter of a C++ function: a managed tensor without a Python object around it, or an empty
/// one without an error where the object is left to another overload. Nothing is copied before it
/// is known that the object fits.
struct ArgumentTarget {
  static constexpr Towards towards = Towards::kManaged;
  static constexpr Dialect dialect = Dialect::kPythonArgument;
  static constexpr Stream (*reader)(Device) = stream_of_managed;

  [[nodiscard]] bool owns(const Door& /*door*/) const { return false; }
  [[nodiscard]] const Capabilities& capabilities(const Door& /*door*/, const Call& /*call*/) const {
    return of_parameter();
  }
  [[nodiscard]] const Capabilities* at_a_glance(const Way& /*way*/) const {
    return &of_parameter();
  }
  [[nodiscard]] ManagedTensor made_of(ManagedTensor tensor) const { return tensor; }
  [[nodiscard]] bool fits(const DLTensor& tensor, Device device) const {
    return (parameter.dtype.bits == 0 || parameter.dtype == DType(tensor.dtype)) &&
           (parameter.ndim < 0 || parameter.ndim == tensor.ndim) &&
           (!parameter.on_device || device.type != kDLCPU);
  }
  [[nodiscard]] bool leaves_to_another(const Door& door, const Plan& plan) const {
    const DLTensor& tensor = door.source.tensor;
    // What has no type is refused, and says why.
    const bool fits_it = tensor.dtype.bits == 0 || fits(tensor, plan.device);
    if (!fits_it && matching == Matching::kAlone) [[unlikely]] {
      raise_mismatch(door, plan);
    }
    return !fits_it || (matching == Matching::kLooking && (plan.is_refused() || !plan.view));
  }
  [[nodiscard]] bool comes_back(const Door& /*door*/) const { return true; }
  [[nodiscard]] ManagedTensor itself(const Door& /*door*/, const Plan& /*plan*/) const {
    return {};
  }
  [[nodiscard]] ManagedTensor deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
    return ordered(detail::carry(door, plan), reader);
  }

  const Parameter& parameter;
  const Matching matching;

 private:
  [[nodiscard]] const Capabilities& of_parameter() const {
    return parameter.loadable ? view_capabilities() : managed_tensor_capabilities();
  }
  [[noreturn]] void raise_mismatch(const Door& door, const Plan& plan) const;
};

}  // namespace dlbridge::python
