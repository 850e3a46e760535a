#include "dlbridge/python_lease.hpp"

#include <array>
#include <atomic>
#include <new>

namespace dlbridge {
namespace {

struct Deferred {
  Deferred* next;
  void* context;
  void (*action)(void*);
};

std::atomic<Deferred*> deferred_releases{nullptr};

// What waits for the end of a ReleasesWait on this thread. Few: the rest goes by the queue.
struct Waiting {
  struct Release {
    void* context;
    void (*action)(void*);
  };
  bool open = false;
  unsigned count = 0;
  std::array<Release, 4> releases{};
};
thread_local constinit Waiting waiting;

thread_local bool holds_gil_while_finalizing = false;

bool gil_is_held() noexcept {
  // Before 3.12 PyGILState_Check answers yes once the interpreter is gone, so that comes first.
  // From the start of finalisation on, Py_IsInitialized says no.
  if (Py_IsInitialized() == 0) {
    return holds_gil_while_finalizing;
  }
  return PyGILState_Check() != 0;
}

int drain_pending_call(void* /*unused*/) {
  drain_releases();
  return 0;
}

bool wait_on_this_thread(void* context, void (*action)(void*)) noexcept {
  Waiting& here = waiting;
  if (!here.open || here.count == here.releases.size()) {
    return false;
  }
  here.releases[here.count++] = {context, action};
  return true;
}

void defer(void* context, void (*action)(void*)) noexcept {
  if (wait_on_this_thread(context, action)) {
    return;
  }
  auto* entry = new (std::nothrow) Deferred{nullptr, context, action};
  if (entry == nullptr) {
    return;  // a leak is all that is left: waiting for the GIL is not an option
  }
  Deferred* head = deferred_releases.load(std::memory_order_relaxed);
  do {
    entry->next = head;
  } while (!deferred_releases.compare_exchange_weak(head, entry, std::memory_order_release,
                                                    std::memory_order_relaxed));
  if (head == nullptr) {
    // When the interpreter's list is full, the next call into this library drains instead.
    Py_AddPendingCall(drain_pending_call, nullptr);
  }
}

}  // namespace

void run_with_gil(void* context, void (*action)(void*)) noexcept {
  if (gil_is_held()) {
    action(context);
  } else if (Py_IsInitialized() != 0) {
    defer(context, action);
  }
  // Otherwise the interpreter is going or gone: what the action would touch may be gone as well.
}

Lease python_lease(PyObject* owned) noexcept {
  return {owned, [](void* object) noexcept {
            run_with_gil(object, [](void* context) { Py_DECREF(static_cast<PyObject*>(context)); });
          }};
}

namespace {

bool has_thread_state() {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked() != nullptr;
#else
  return _PyThreadState_UncheckedGet() != nullptr;
#endif
}

// A deleter has nobody to raise to: what it leaves is told as an error of a destructor is, and what
// was on its way before is not touched.
template <typename Managed>
void delete_foreign(void* context) {
  auto* tensor = static_cast<Managed*>(context);
  if (tensor->deleter == nullptr) {
    return;
  }
  if (!has_thread_state()) {  // Python has gone: no errors either
    tensor->deleter(tensor);
    return;
  }
  const KeepError keep;
  tensor->deleter(tensor);
  if (PyErr_Occurred() != nullptr) {
    PyErr_WriteUnraisable(nullptr);
  }
}

}  // namespace

void run_foreign_deleter(void* managed) noexcept {
  run_with_gil(managed, delete_foreign<DLManagedTensorVersioned>);
}

void run_foreign_legacy_deleter(void* managed) noexcept {
  run_with_gil(managed, delete_foreign<DLManagedTensor>);
}

void drain_releases() noexcept {
  if (deferred_releases.load(std::memory_order_relaxed) == nullptr) {
    return;
  }
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
    oldest->action(oldest->context);
    delete oldest;
    oldest = next;
  }
}

ReleasesWait::ReleasesWait() noexcept : outermost_(!waiting.open) {
  waiting.open = true;
}

ReleasesWait::~ReleasesWait() {
  Waiting& here = waiting;
  if (!outermost_) {
    return;
  }
  here.open = false;
  if (here.count == 0) {
    return;
  }
  // A release can run any code, and more may wait meanwhile.
  const Waiting due = here;
  here.count = 0;
  const KeepError keep;
  for (unsigned i = 0; i < due.count; ++i) {
    due.releases[i].action(due.releases[i].context);
  }
}

HoldsGil::HoldsGil() noexcept : entered_(Py_IsInitialized() == 0 && !holds_gil_while_finalizing) {
  if (entered_) {
    holds_gil_while_finalizing = true;
  }
}

HoldsGil::~HoldsGil() {
  if (entered_) {
    holds_gil_while_finalizing = false;
  }
}

}  // namespace dlbridge
