#pragma once

#include <optional>
#include <utility>

#include "dlbridge/shared_memory.hpp"
#include "targets/target.hpp"

namespace dlbridge::python {

/// Memory that other processes can map: a dlbridge.ManagedTensor in a block of it.
class SharedTarget final : public Target {
 public:
  /// Each copy has a block of its own.
  explicit SharedTarget(SharedMode mode) : Target(Towards::kProcess), mode_(mode) {}
  /// All copies are in one block, of so many bytes. For one call, on one thread.
  SharedTarget(SharedMode mode, std::size_t bytes)
      : Target(Towards::kProcess), mode_(mode), arena_(std::in_place, mode, bytes) {}

  [[nodiscard]] bool owns(const Door& /*door*/) const override { return false; }
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;

 private:
  const SharedMode mode_;
  mutable std::optional<SharedArena> arena_;
};

extern const SharedTarget kToProcess;

}  // namespace dlbridge::python
