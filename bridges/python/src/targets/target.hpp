#pragma once

// The ways out: what a library can take, and how it is handed over. One file a target.

#include <memory>
#include <string>
#include <vector>

#include "call.hpp"
#include "doors/door.hpp"
#include "ledger.hpp"

namespace dlbridge::python {

/// A way out. Those that are called the most are also known by their own, final, class.
class Target {
 public:
  explicit Target(Towards towards_, Stream (*reader_)(Device) = stream_of_managed)
      : towards(towards_), reader(reader_) {}
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  virtual ~Target() = default;

  /// Of the calls that lead to it.
  static constexpr Dialect dialect = Dialect::kPython;

  /// Whether the object comes back without a look into it: libraries have objects of their own that
  /// they export to nobody.
  [[nodiscard]] virtual bool keeps(PyObject* /*object*/, const Way& /*way*/,
                                   const Call& /*call*/) const {
    return false;
  }
  /// Whether the object is of the target's library.
  [[nodiscard]] virtual bool owns(const Door& door) const = 0;
  /// What it can take of what was opened: its own table, or the door's `capabilities`, which it
  /// fills then.
  [[nodiscard]] virtual const Capabilities& capabilities(Door& door, const Call& call) const = 0;
  /// The object itself, of which nothing was asked; or its own library's copy of it, where that is
  /// the plan.
  [[nodiscard]] virtual Ref itself(const Door& door, const Plan& /*plan*/) const {
    return Ref::borrow(door.object);
  }
  /// Whether that is the very object, and none that was read in its place: then nothing crosses.
  [[nodiscard]] virtual bool comes_back(const Door& /*door*/) const { return true; }
  /// Carries the plan's legs, and makes the library's object of what comes.
  [[nodiscard]] virtual Ref deliver(Door& door, const Plan& plan, const Call& call) const = 0;
  /// What it can take of what is plain at a glance, and is made of that: the same as the long way.
  /// Null where it looks closer, and at its own library's objects.
  [[nodiscard]] virtual const Capabilities* at_a_glance(const Way& /*way*/) const {
    return nullptr;
  }
  [[nodiscard]] virtual Ref made_of(ManagedTensor /*tensor*/) const { return {}; }
  /// What the library would have done by itself where its conditions are met.
  [[nodiscard]] virtual std::vector<std::string> notes(const Plan& /*plan*/) const { return {}; }

  const Towards towards;
  Stream (*const reader)(Device);  // the stream that will read memory of a device
};

/// The capsule that owns the target. Throws PythonError.
[[nodiscard]] Ref target_capsule(std::unique_ptr<Target> target);

/// The target of that name ("numpy", "torch", "dlbridge", "process"), or of such a capsule. Throws
/// PythonError.
[[nodiscard]] const Target& target_in(PyObject* name_or_capsule);

/// What a library made of a tensor, or the refusal of what it has against it: of sizes that
/// overflow beside a size of 0, say, each library has an opinion of its own.
[[nodiscard]] Ref made_by(const char* result, PyObject* made);

/// The tensor of what was carried, ordered for whoever reads it on `reader`.
[[nodiscard]] inline ManagedTensor ordered(detail::Carried carried, Stream (*reader)(Device)) {
  const Device device = carried.tensor.device();
  if (!device.host_accessible()) [[unlikely]] {
    order_streams(device, carried.stream, reader(device));
  }
  return std::move(carried.tensor);
}

}  // namespace dlbridge::python
