#include "dlbridge/python_lease.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <utility>

namespace dlbridge {

struct detail::DeferredRelease {
  DeferredRelease* next;
  void* context;
  void (*action)(void*);
};
std::atomic<detail::DeferredRelease*> detail::deferred_releases{nullptr};

namespace {

using detail::deferred_releases;
using Deferred = detail::DeferredRelease;

// How many of them wait for no more than the next call of ours: few, so that little is kept.
constexpr unsigned kMayWait = 16;
std::atomic<unsigned> patient_releases{0};

// Pages go back to the system at some 10 GB/s: below this they go in less time than it may take to
// get the GIL again.
constexpr std::int64_t kLongToFree = 1 << 20;

bool takes_long_to_free(const DLTensor& tensor) noexcept {
  // Divided, since the bytes of what is expanded may be more than fit.
  const std::int64_t width = std::max<std::int64_t>(DType(tensor.dtype).element_bits() / 8, 1);
  return element_count(tensor) >= kLongToFree / width;
}

// Whether the interpreter has been asked to carry them out.
std::atomic<bool> drain_is_pending{false};

thread_local bool holds_gil_while_finalizing = false;
thread_local bool may_let_go_of_gil = false;

bool gil_is_held() noexcept {
  // Before 3.12 PyGILState_Check answers yes once the interpreter is gone, so that comes first.
  // From the start of finalisation on, Py_IsInitialized says no.
  if (Py_IsInitialized() == 0) {
    return holds_gil_while_finalizing;
  }
  return PyGILState_Check() != 0;
}

int drain_pending_call(void* /*unused*/) {
  drain_is_pending.exchange(false, std::memory_order_acq_rel);
  drain_releases();
  return 0;
}

void defer(void* context, void (*action)(void*), bool patient) noexcept {
  auto* entry = new (std::nothrow) Deferred{nullptr, context, action};
  if (entry == nullptr) {
    return;  // a leak is all that is left: waiting for the GIL is not an option
  }
  Deferred* head = deferred_releases.load(std::memory_order_relaxed);
  do {
    entry->next = head;
  } while (!deferred_releases.compare_exchange_weak(head, entry, std::memory_order_release,
                                                    std::memory_order_relaxed));
  if (patient && patient_releases.fetch_add(1, std::memory_order_relaxed) < kMayWait) {
    return;
  }
  if (!drain_is_pending.exchange(true, std::memory_order_acq_rel) &&
      Py_AddPendingCall(drain_pending_call, nullptr) != 0) {
    drain_is_pending = false;  // its list is full: the next call into this library drains instead
  }
}

void run_or_defer(void* context, void (*action)(void*), bool patient) noexcept {
  if (gil_is_held()) {
    action(context);
  } else if (Py_IsInitialized() != 0) {
    defer(context, action, patient);
  }
  // Otherwise the interpreter is going or gone: what the action would touch may be gone as well.
}

void let_go(void* object) {
  Py_DECREF(static_cast<PyObject*>(object));
}

// False once Python has gone, and its errors with it.
bool has_thread_state() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked() != nullptr;
#else
  return _PyThreadState_UncheckedGet() != nullptr;
#endif
}

// What lets go has nobody to raise to: what it leaves is told as an error of a destructor is. The
// caller keeps what was on its way before.
void run_without_error(void* context, void (*action)(void*)) noexcept {
  action(context);
  if (PyErr_Occurred() != nullptr) {
    PyErr_WriteUnraisable(nullptr);
  }
}

}  // namespace

void run_with_gil(void* context, void (*action)(void*)) noexcept {
  if (gil_is_held() && has_thread_state()) {
    const KeepError keep;
    run_without_error(context, action);
  } else {
    run_or_defer(context, action, false);
  }
}

void free_large(void* context, void (*action)(void*), std::size_t bytes) noexcept {
  std::optional<WithoutGil> without_gil;
  // torch may have given the GIL up since.
  if (may_let_go_of_gil && bytes >= static_cast<std::size_t>(kLongToFree) && gil_is_held()) {
    without_gil.emplace();
  }
  action(context);
}

void detail::let_go_soon(void* object) noexcept {
  run_or_defer(object, let_go, false);
}

void detail::let_go_patiently(void* object) noexcept {
  run_or_defer(object, let_go, true);
}

void run_foreign_deleter(void* managed) noexcept {
  run_with_gil(managed, detail::run_own_deleter<DLManagedTensorVersioned>);
}

void run_foreign_legacy_deleter(void* managed) noexcept {
  run_with_gil(managed, detail::run_own_deleter<DLManagedTensor>);
}

void detail::drain_deferred() noexcept {
  drain_is_pending.exchange(false, std::memory_order_acq_rel);
  patient_releases.store(0, std::memory_order_relaxed);
  Deferred* newest = deferred_releases.exchange(nullptr, std::memory_order_acquire);
  Deferred* oldest = nullptr;
  while (newest != nullptr) {
    Deferred* next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  const KeepError keep;
  while (oldest != nullptr) {
    Deferred* next = oldest->next;
    run_without_error(oldest->context, oldest->action);
    delete oldest;
    oldest = next;
  }
}

GivesBack::GivesBack(const DLTensor& tensor) noexcept
    : could_let_go_(std::exchange(may_let_go_of_gil, false)) {
  if (Py_IsInitialized() == 0) {
    keeps_gil_ = !holds_gil_while_finalizing;
    holds_gil_while_finalizing = true;
  } else if (takes_long_to_free(tensor)) {
    without_gil_.emplace();
  } else {
    may_let_go_of_gil = true;
  }
}

GivesBack::~GivesBack() {
  may_let_go_of_gil = could_let_go_;
  if (keeps_gil_) {
    holds_gil_while_finalizing = false;
  }
  if (without_gil_) {
    without_gil_.reset();
    drain_releases();
  }
}

}  // namespace dlbridge
