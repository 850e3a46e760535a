#pragma once

// Python objects that anybody may let go of, with or without the GIL; and the GIL for a scope.

#include <atomic>
#include <optional>

#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/python_error.hpp"

namespace dlbridge {

namespace detail {
void let_go_soon(void* object) noexcept;
void let_go_patiently(void* object) noexcept;

struct DeferredRelease;
extern std::atomic<DeferredRelease*> deferred_releases;
void drain_deferred() noexcept;
}  // namespace detail

/// A lease on a Python object, whose reference it takes over. Given back on any thread: at once
/// where the thread holds the GIL, otherwise by whoever holds it next. Never waits for the GIL, and
/// keeps the object for good once the interpreter is gone.
[[nodiscard]] inline Lease python_lease(PyObject* owned) noexcept {
  return {owned, detail::let_go_soon};
}

/// The same for an object that is small and whose end nobody watches. Without the GIL it may wait
/// for the next drain_releases(), sixteen of them at most: asking the interpreter takes longer than
/// a small crossing does otherwise.
[[nodiscard]] inline Lease patient_lease(PyObject* owned) noexcept {
  return {owned, detail::let_go_patiently};
}

/// Gives a lease back for one who has the GIL, which need not be asked for then.
inline void give_back_with_gil(const Lease& lease) noexcept {
  if (lease.release == detail::let_go_soon || lease.release == detail::let_go_patiently) {
    Py_DECREF(static_cast<PyObject*>(lease.context));
  } else {
    lease.give_back();
  }
}

/// Runs `action(context)`, which may need the GIL, under the same rules: without the error that is
/// on its way, which it might take for its own.
void run_with_gil(void* context, void (*action)(void* context)) noexcept;

/// Runs `action(context)`, which frees that many bytes and needs no GIL. Within GivesBack others
/// may have it meanwhile, where that takes long.
void free_large(void* context, void (*action)(void* context), std::size_t bytes) noexcept;

/// Deleters for managed tensors of Python's producers, which may take the GIL themselves: to be
/// passed to ManagedTensor::adopt.
void run_foreign_deleter(void* managed) noexcept;         // of a DLManagedTensorVersioned
void run_foreign_legacy_deleter(void* managed) noexcept;  // of a DLManagedTensor

/// Carries out what other threads left behind. Call with the GIL; cheap when there is nothing.
inline void drain_releases() noexcept {
  if (detail::deferred_releases.load(std::memory_order_relaxed) != nullptr) [[unlikely]] {
    detail::drain_deferred();
  }
}

/// For a scope that may wait: others may have the GIL meanwhile.
class WithoutGil {
 public:
  WithoutGil() noexcept : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

/// The scope in which the deallocator of a Python object gives `tensor` back, with the GIL at both
/// ends. Memory that takes long to free is freed without it; leases on Python objects have ended
/// with the scope all the same. While the interpreter is shutting down the GIL is kept, and
/// releases know that it is: otherwise they would have to assume that it is not.
class GivesBack {
 public:
  explicit GivesBack(const DLTensor& tensor) noexcept;
  ~GivesBack();
  GivesBack(const GivesBack&) = delete;
  GivesBack& operator=(const GivesBack&) = delete;

 private:
  bool keeps_gil_ = false;
  bool could_let_go_;  // the scope around this one
  std::optional<WithoutGil> without_gil_;
};

}  // namespace dlbridge
