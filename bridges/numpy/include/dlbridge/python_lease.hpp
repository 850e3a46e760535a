#pragma once

#include <Python.h>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

/// A lease on a Python object, whose reference it takes over. Given back on any thread: at once
/// where the thread holds the GIL, otherwise by whoever holds it next. Never waits for the GIL, and
/// keeps the object for good once the interpreter is gone.
[[nodiscard]] Lease python_lease(PyObject* owned) noexcept;

/// Runs `action(context)`, which may need the GIL, under the same rules.
void run_with_gil(void* context, void (*action)(void* context)) noexcept;

/// Deleters for managed tensors of Python's producers, which may take the GIL themselves: to be
/// passed to ManagedTensor::adopt.
void run_foreign_deleter(void* managed) noexcept;         // of a DLManagedTensorVersioned
void run_foreign_legacy_deleter(void* managed) noexcept;  // of a DLManagedTensor

/// Carries out what other threads left behind. Call with the GIL; cheap when there is nothing.
void drain_releases() noexcept;

/// For a scope that certainly holds the GIL though the interpreter is shutting down: the
/// deallocator of a Python object. Without it, releases at exit would have to assume that they do
/// not.
class HoldsGil {
 public:
  HoldsGil() noexcept;
  ~HoldsGil();
  HoldsGil(const HoldsGil&) = delete;
  HoldsGil& operator=(const HoldsGil&) = delete;

 private:
  bool entered_;
};

}  // namespace dlbridge
