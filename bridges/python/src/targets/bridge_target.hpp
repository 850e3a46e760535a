#pragma once

#include "dlbridge/python.hpp"
#include "targets/target.hpp"

namespace dlbridge::python {

/// The objects of a bridge of C++.
class BridgeTarget final : public Target {
 public:
  /// `way` leads into them.
  BridgeTarget(const detail::BridgeRow& bridge, const Way* way)
      : Target(Towards::kOther), bridge_(bridge), way_(way) {}

  [[nodiscard]] bool owns(const Door& door) const override { return door.is_of(*way_); }
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;

 private:
  const detail::BridgeRow& bridge_;
  const Way* const way_;
};

/// Makes a bridge a way in and a way out of the package. Throws PythonError.
void add_bridge(const detail::BridgeRow& bridge);

}  // namespace dlbridge::python
