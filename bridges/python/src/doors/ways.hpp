#pragma once

// The ways in: how an object of Python's can be read. One row a way, one file a row.

#include "dlbridge/plan.hpp"
#include "errors.hpp"

namespace dlbridge::python {

class Door;
struct LibraryRow;

/// A way in. Its functions need the GIL, and throw PythonError or ConversionRefused.
struct Way {
  /// Fills the door's source. Where memory comes as a managed tensor, it is the door's `taken`
  /// then.
  void (*describe)(Door& door);
  /// A view that keeps the memory, whatever becomes of the object.
  ManagedTensor (*acquire)(Door& door);
  /// Carries a leg of the producer's, and describes in `made` what its library made.
  ManagedTensor (*prepare)(Door& door, const Leg& leg, Source& made);
  /// Takes what the door reads by the protocol, for libraries that have no bridge of their own.
  void (*take)(Door& door);
  /// The common case of describe() and acquire() at a glance, as a PlainProducer has them; null for
  /// a way that has none.
  Glance (*plain)(PyObject* object, DLTensor& tensor) = nullptr;
  Lease (*lease)(PyObject* object, DLTensor& tensor) = nullptr;
};

extern const Way kTorchWay;
extern const Way kNumPyWay;
extern const Way kNumPyScalarWay;
extern const Way kManagedTensorWay;
extern const Way kCapsuleWay;
extern const Way kExchangeTableWay;
extern const Way kDLPackWay;
extern const Way kCudaArrayInterfaceWay;
extern const Way kArrayInterfaceWay;
extern const Way kBufferWay;
extern const Way kArrowArrayWay;
extern const Way kArrowStreamWay;
extern const Way kArrowDeviceArrayWay;
extern const Way kArrayMethodWay;
/// Of objects without a protocol, whose library says in the registry how they are read.
extern const Way kRegisteredWay;

/// The way into an object of this type, or null; probed once per type, and again when the type
/// changed. The order is that of the design: the exchange table before __dlpack__, and so on.
[[nodiscard]] const Way* way_into(PyObject* object);

/// Looks on the type alone: an object that answers to every name must not be mistaken for a tensor.
[[nodiscard]] bool type_has(PyTypeObject* type, const char* name);

/// The first protocol of a type behind that one, or behind none; null where it has no more.
[[nodiscard]] const Way* next_way(const Way* after, PyTypeObject* type);

/// The way into what is one tensor, and no tree: its library's, where it has no other.
[[nodiscard]] inline const Way& way_into_tensor(PyObject* object) {
  const Way* way = way_into(object);
  return way == nullptr ? kRegisteredWay : *way;
}

/// Makes `way` the one into objects of that type and its subclasses, before any protocol that they
/// speak: a bridge in C++. Both live as long as the process.
void add_way(PyTypeObject* type, const Way& way);

/// library_of(), remembered with the way; and for the registry, after it has changed.
[[nodiscard]] const LibraryRow* library_known_of(PyTypeObject* type);
void forget_libraries() noexcept;

/// Whether __dlpack__ of this type is known not to take `max_version`, so that it is not tried
/// again.
[[nodiscard]] bool wants_bare_call(PyTypeObject* type) noexcept;
void remember_bare_call(PyTypeObject* type) noexcept;

}  // namespace dlbridge::python
