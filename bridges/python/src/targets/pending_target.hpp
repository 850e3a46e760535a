#pragma once

#include "targets/numpy_target.hpp"

namespace dlbridge::python {

/// to_numpy(out=, async_=): into an array that is there, and copies from a device that go on while
/// the caller does something else. For one call.
class PendingTarget final : public Target {
 public:
  /// `out`: a writable numpy.ndarray of the result's shape and dtype, which is filled and returned,
  /// or None. `pending`: the result is a dlbridge.PendingArray.
  PendingTarget(PyObject* out, bool pending)
      : Target(Towards::kNumPy), out_(out), pending_(pending) {}

  [[nodiscard]] bool owns(const Door& door) const override {
    return out_ == Py_None && kToNumPy.owns(door);
  }
  [[nodiscard]] const Capabilities& capabilities(
      Door& door, const Call& call, std::optional<Capabilities>& /*changed*/) const override {
    return NumPy::capabilities(door.source, call.request);
  }
  [[nodiscard]] Ref itself(const Door& door, const Plan& plan) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;

 private:
  [[nodiscard]] Ref begun(Door& door, const Plan& plan) const;

  PyObject* const out_;
  const bool pending_;
};

/// What `out=` makes of a call: a copy, into what has to be an array. Throws PythonError.
[[nodiscard]] Call call_into(PyObject* out, const Call& call);

}  // namespace dlbridge::python
