#pragma once

#include <array>
#include <optional>
#include <utility>

#include "dlbridge/shared_memory.hpp"
#include "targets/target.hpp"

namespace dlbridge::python {

/// The names of the modes, by their numbers.
inline constexpr std::array<const char*, 3> kModes = {"read", "give", "write"};

/// Memory that other processes can map: a dlbridge.ManagedTensor in a block of it, or in a pool of
/// its device.
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
  [[nodiscard]] Ref copied_there(Door& door, const Plan& plan) const;

  const SharedMode mode_;
  mutable std::optional<SharedArena> arena_;
};

extern const SharedTarget kToProcess;

}  // namespace dlbridge::python
