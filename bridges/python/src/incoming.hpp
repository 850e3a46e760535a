#pragma once

#include <optional>

#include "convert.hpp"
#include "dlbridge/transfer.hpp"

namespace dlbridge::python {

/// How an object is going to be read, and what is known of it. Ends with the crossing.
///
/// Memory of a device is read in order: `source().stream` is the stream that the producer's work on
/// it is on. A producer that speaks __dlpack__ is told whose stream it is for: torch's where the
/// tensor goes to torch, ours otherwise, or the caller's.
class Incoming {
 public:
  struct Look {
    bool only_look = false;      // a raw capsule is not consumed
    bool towards_torch = false;  // torch's stream is the one that will read
    std::optional<Stream> stream{};
  };

  Incoming(PyObject* object, const Look& look) : Incoming(object, kind_of(object), look) {}
  Incoming(PyObject* object, SourceKind kind, const Look& how) : object_(object), kind_(kind) {
    look(how);
    if (source().tensor.device.device_type != kDLCPU || source().traits.maybe_pinned) [[unlikely]] {
      settle(how);
    }
  }

  [[nodiscard]] Source& source() { return crossing_.source; }
  [[nodiscard]] SourceKind kind() const { return kind_; }
  [[nodiscard]] PyObject* object() const { return object_; }
  [[nodiscard]] const LibraryRow* row() const { return crossing_.row; }

  /// Calls the packed float4 by the name that the target knows.
  void adapt(const Capabilities& target);

  /// Whether a producer copies to the host when asked is known only after asking. Throws as the
  /// conversion would.
  void try_host_copy() const;

  /// The managed tensor that an accepted plan makes of the object. What it holds on the host is
  /// there; memory of a device is ordered on `stream()`.
  [[nodiscard]] ManagedTensor carry(const Plan& plan, const Capabilities& target,
                                    const Call& call) {
    if (plan.view && source().tensor.device.device_type == kDLCPU && !respelled_) [[likely]] {
      ManagedTensor view = acquire();
      carry_out_view(plan, view);
      return view;
    }
    return carry_otherwise(plan, target, call);
  }

  /// A view that keeps the memory valid, with nothing of a plan done to it.
  [[nodiscard]] ManagedTensor acquire();

  /// The stream that what carry() gave is ordered on, where it is memory of a device.
  [[nodiscard]] Stream stream() const { return carried_on_; }

 private:
  void look(const Look& look);
  void settle(const Look& look);
  void settle_device(const Look& look);
  void settle_location();
  ManagedTensor carry_otherwise(const Plan& plan, const Capabilities& target, const Call& call);
  ManagedTensor carry_by_library(const Plan& plan, const Capabilities& target, const Call& call);
  static ManagedTensor finish(Incoming prepared, const Capabilities& target, const Call& call);

  PyObject* object_;
  Ref scalar_;
  SourceKind kind_;
  Crossing crossing_;
  Stream carried_on_;
  bool respelled_ = false;
};

/// The plan of a conversion; raises its refusal. Throws PythonError.
[[nodiscard]] inline Plan decide(Incoming& incoming, const Capabilities& target, const Call& call) {
  const Plan decided = plan(incoming.source(), target, call.policy, call.request);
  if (decided.is_refused()) [[unlikely]] {
    raise_refused(decided, incoming.source(), target, call.policy, call.request);
  }
  return decided;
}

}  // namespace dlbridge::python
