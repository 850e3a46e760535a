#pragma once

#include "registry.hpp"
#include "targets/target.hpp"

namespace dlbridge::python {

/// A library without a compiled bridge: it is handed a ManagedTensor that it can take, and its row
/// in the registry says how.
class LibraryTarget final : public Target {
 public:
  explicit LibraryTarget(ConsumerRow row) : Target(Towards::kOther), row_(std::move(row)) {}

  [[nodiscard]] bool keeps(PyObject* object, const Way& way, const Call& call) const override;
  [[nodiscard]] bool owns(const Door& door) const override;
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;
  [[nodiscard]] std::vector<std::string> notes(const Plan& plan) const override;

 private:
  const ConsumerRow row_;
};

}  // namespace dlbridge::python
