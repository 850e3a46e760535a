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

/// Keeps an error that is on its way: what is released or deallocated meanwhile can run any code.
class KeepError {
 public:
  KeepError() noexcept { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~KeepError() { PyErr_Restore(type_, value_, traceback_); }
  KeepError(const KeepError&) = delete;
  KeepError& operator=(const KeepError&) = delete;

 private:
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
};

/// For a scope that holds the GIL at its beginning and its end, though a library lets go of memory
/// without it in between. What that gives back on this thread waits for the scope's end: cheaper
/// than the queue, and no later.
class ReleasesWait {
 public:
  ReleasesWait() noexcept;
  ~ReleasesWait();
  ReleasesWait(const ReleasesWait&) = delete;
  ReleasesWait& operator=(const ReleasesWait&) = delete;

 private:
  bool outermost_;
};

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
