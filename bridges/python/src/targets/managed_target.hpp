#pragma once

#include "targets/target.hpp"

namespace dlbridge::python {

/// dlbridge.ManagedTensor, ordered on the runtime's own stream, whoever wrote to its memory.
class ManagedTarget final : public Target {
 public:
  ManagedTarget() : Target(Towards::kManaged) {}

  [[nodiscard]] bool owns(const Door& door) const override { return door.is_of(kManagedTensorWay); }
  [[nodiscard]] const Capabilities& capabilities(Door& /*door*/,
                                                 const Call& /*call*/) const override {
    return managed_tensor_capabilities();
  }
  [[nodiscard]] const Capabilities* at_a_glance(const Way& /*way*/) const override {
    return &managed_tensor_capabilities();
  }
  [[nodiscard]] Ref made_of(ManagedTensor tensor) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;
};

/// What a managed tensor can carry to whose processor loads its elements by their type.
[[nodiscard]] const Capabilities& view_capabilities();

/// A raw capsule: "dltensor_versioned", or "dltensor", the legacy one. Whoever takes it knows no
/// stream, so its memory is ordered on the default one, as DLPack has it for stream=None.
class CapsuleTarget final : public Target {
 public:
  explicit CapsuleTarget(bool versioned) : Target(Towards::kCapsule), versioned_(versioned) {}

  [[nodiscard]] bool owns(const Door& /*door*/) const override { return false; }
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;

 private:
  const bool versioned_;
};

extern const ManagedTarget kToManaged;

}  // namespace dlbridge::python
