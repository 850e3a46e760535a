#pragma once

#include <Python.h>

#include <string_view>

#include "dlbridge/capabilities.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge::cpython {
class Ref;
}

namespace dlbridge::python {

class ArgumentTuple;

/// A way to torch's tensors from Python. Two obey the same policy: the linked road, a companion
/// extension built for the torch that is running, and the portable one, on torch's Python surface.
///
/// Every function needs the GIL and throws nothing: a failure leaves Python's error set.
class TorchRoad {
 public:
  TorchRoad() = default;
  TorchRoad(const TorchRoad&) = delete;
  TorchRoad& operator=(const TorchRoad&) = delete;
  virtual ~TorchRoad() = default;

  [[nodiscard]] virtual std::string_view name() const noexcept = 0;

  /// Fills `source`, which borrows from the tensor. False on an error.
  virtual bool describe(PyObject* tensor, Source& source) const noexcept = 0;

  /// What a PlainProducer says of it at a glance; a closer look for what is in a trace.
  virtual Glance plain(PyObject* tensor, DLTensor& described) const noexcept = 0;

  /// Holds the tensor's memory, and corrects the data pointer. False on an error.
  virtual bool lease(PyObject* tensor, DLTensor& described, Lease& lease) const noexcept = 0;

  /// A new, private tensor: packed, detached, without bits to be resolved, where the leg ends. Null
  /// on an error.
  virtual PyObject* prepare(PyObject* tensor, const Leg& leg) const noexcept = 0;

  [[nodiscard]] virtual const Capabilities& capabilities() const noexcept = 0;

  /// A tensor over memory without negative strides. Takes `managed` in every case. Null on an
  /// error.
  virtual PyObject* deliver(DLManagedTensorVersioned* managed) const noexcept = 0;

  /// Lets torch say that a tensor leaves its trace. False on an error: a warning may be one.
  virtual bool warn_of_trace() const noexcept = 0;

  /// Lets autograd know that the tensor's memory was written to: a new reference to whether it
  /// counts that, which it does not of an inference tensor. Null on an error, and without one where
  /// this road leaves it to torch's Python.
  virtual PyObject* count_write(PyObject* /*tensor*/) const noexcept { return nullptr; }
};

/// How the module lets go of what may need the GIL, and of what is large and does not.
struct ReleasesOfModule {
  void (*run_with_gil)(void* context, void (*action)(void*)) = nullptr;
  void (*free_large)(void* context, void (*action)(void*), std::size_t bytes) = nullptr;
};

/// What the companion extension needs of the module, and gives it, through one capsule of this
/// name.
inline constexpr const char* kCompanionCapsule = "dlbridge.torch_companion";
struct Companion {
  // Bumped with any change of the classes that cross between the two binaries.
  static constexpr int kInterface = 8;
  int interface = kInterface;
  const TorchRoad* (*open)(const ReleasesOfModule& releases) = nullptr;
};

/// The road in use; chosen when the first tensor comes by. Null, with Python's error set, when
/// torch cannot be had.
extern const TorchRoad* road_in_use;
const TorchRoad* first_road() noexcept;
inline const TorchRoad* torch_road() noexcept {
  return road_in_use != nullptr ? road_in_use : first_road();
}

/// Fills `source` by that road. Throws PythonError where it fails, or is null.
void describe_by_road(const TorchRoad* road, PyObject* tensor, Source& source);

/// dlbridge._core.torch_road([name]): the road in use, after a change to that one.
cpython::Ref choose_torch_road(ArgumentTuple arguments);

/// dlbridge._core.count_write(tensor): TorchRoad::count_write().
cpython::Ref count_write(PyObject* tensor);

/// dlbridge._core.companion_agrees(companion, tensors): whether its road says of each tensor what
/// the portable one says, and makes tensors that are where they should be.
cpython::Ref companion_agrees(ArgumentTuple arguments);

}  // namespace dlbridge::python
