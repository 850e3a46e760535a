#pragma once

#include "errors.hpp"

namespace dlbridge::python {

/// What a capsule's name says is in it.
enum class CapsuleKind { kNone, kVersioned, kLegacy, kUsed };

[[nodiscard]] CapsuleKind capsule_kind(PyObject* capsule) noexcept;

/// Takes the managed tensor out of a capsule, which is renamed: it cannot be taken twice. Throws
/// MalformedTensor, after the deleter has run, or ConversionRefused for a capsule that has none.
/// `legacy_writable`: whether the producer of a legacy capsule is known to mean it to be written
/// to.
[[nodiscard]] ManagedTensor take_capsule(PyObject* capsule, bool legacy_writable);

/// Looks at the tensor in a capsule without taking it. Throws as take_capsule does, but leaves the
/// capsule as it is. `source` borrows the memory alone.
void peek_capsule(PyObject* capsule, const Library& library, Source& source);

/// While it is only read, a capsule's tensor is nobody else's to take: it goes by the name of a
/// used one. At the end it has its name again, unless the tensor was `spent`: that runs the
/// deleter.
struct LentCapsule {
  PyObject* capsule = nullptr;
  const char* name = nullptr;
};
[[nodiscard]] LentCapsule lend_capsule(PyObject* capsule);
void end_lending(LentCapsule lent, bool spent) noexcept;

/// A new capsule that owns the tensor; its destructor runs the deleter unless somebody took it.
[[nodiscard]] Ref make_capsule(ManagedTensor tensor, bool versioned);

}  // namespace dlbridge::python
