#pragma once

#include "targets/target.hpp"

namespace dlbridge::python {

/// numpy.ndarray, over the memory of a managed tensor.
class NumPyTarget final : public Target {
 public:
  NumPyTarget() : Target(Towards::kNumPy) {}

  [[nodiscard]] bool owns(const Door& door) const override { return door.way == &kNumPyWay; }
  [[nodiscard]] const Capabilities& capabilities(
      Door& door, const Call& call, std::optional<Capabilities>& /*changed*/) const override {
    return NumPy::capabilities(door.source, call.request);
  }
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;
};

/// A new array over the tensor's memory.
[[nodiscard]] Ref array_over(ManagedTensor tensor);

extern const NumPyTarget kToNumPy;

}  // namespace dlbridge::python
