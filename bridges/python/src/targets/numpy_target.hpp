#pragma once

#include "targets/target.hpp"

namespace dlbridge::python {

/// numpy.ndarray, over the memory of a managed tensor.
class NumPyTarget final : public Target {
 public:
  NumPyTarget() : Target(Towards::kNumPy) {}

  /// An array that was read in its object's place is one too, where nothing else could become of
  /// it.
  [[nodiscard]] bool owns(const Door& door) const override {
    const Traits& traits = door.source.traits;
    const bool numpys_alone = traits.own_copy_bytes >= 0;
    if (door.way == &kNumPyWay) [[likely]] {
      return !door.held || (numpys_alone && !traits.conditions.has(Condition::kCopiesOut));
    }
    const bool makes_one =
        (door.way == &kNumPyScalarWay && door.row == nullptr) || door.way == &kArrayMethodWay;
    return makes_one && numpys_alone;
  }
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override {
    return NumPy::capabilities(door.source, call.request);
  }
  [[nodiscard]] const Capabilities* at_a_glance(const Way& way) const override {
    return &way == &kNumPyWay ? nullptr : &NumPy::own_capabilities();
  }
  /// A new array over the tensor's memory.
  [[nodiscard]] Ref made_of(ManagedTensor tensor) const override;
  [[nodiscard]] Ref itself(const Door& door, const Plan& plan) const override;
  [[nodiscard]] bool comes_back(const Door& door) const override {
    return door.way == &kNumPyWay && door.readable == door.object;
  }
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;
};

extern const NumPyTarget kToNumPy;

}  // namespace dlbridge::python
