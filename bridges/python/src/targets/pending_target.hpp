#pragma once

#include "targets/numpy_target.hpp"

namespace dlbridge::python {

/// What is given where the copy goes on after the call: the array once it is there, or a
/// dlbridge.PendingArray, in any case or only in that one.
enum class Gives : std::uint8_t { kArray, kPending, kPendingIfBegun };

/// to_numpy(out=, async_=): into an array that is there, and copies from a device that go on while
/// the caller does something else. For one call.
class PendingTarget final : public Target {
 public:
  /// `out`: a writable numpy.ndarray of the result's shape and dtype, which is filled and returned,
  /// or None.
  PendingTarget(PyObject* out, Gives gives) : Target(Towards::kNumPy), out_(out), gives_(gives) {}

  [[nodiscard]] bool owns(const Door& door) const override {
    return out_ == Py_None && kToNumPy.owns(door);
  }
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override {
    return NumPy::capabilities(door.source, call.request);
  }
  [[nodiscard]] const Capabilities* at_a_glance(const Way& way) const override {
    return out_ == Py_None && gives_ != Gives::kPending ? kToNumPy.at_a_glance(way) : nullptr;
  }
  [[nodiscard]] Ref made_of(ManagedTensor tensor) const override {
    return kToNumPy.made_of(std::move(tensor));
  }
  [[nodiscard]] bool comes_back(const Door& door) const override {
    return kToNumPy.comes_back(door);
  }
  [[nodiscard]] Ref itself(const Door& door, const Plan& plan) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;

 private:
  [[nodiscard]] Ref there(Ref array) const;
  [[nodiscard]] Ref begun(Door& door, const Plan& plan) const;

  PyObject* const out_;
  const Gives gives_;
};

/// Whether it is a dlbridge.PendingArray.
[[nodiscard]] bool is_pending(PyObject* object);

/// What `out=` makes of a call: a copy, into what has to be an array. Throws PythonError.
[[nodiscard]] Call call_into(PyObject* out, const Call& call);

}  // namespace dlbridge::python
