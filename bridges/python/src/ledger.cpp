#include "ledger.hpp"

#include <chrono>
#include <exception>

namespace dlbridge::python {
namespace {

PackageAttribute decided("dlbridge.ledger.blocks", "decided");
PackageAttribute was_refused("dlbridge.ledger.blocks", "was_refused");
PackageAttribute policy_of_context("dlbridge.ledger.blocks", "policy_of_context");
PackageAttribute copies_forbidden("dlbridge.ledger.blocks", "copies_forbidden");

thread_local Watch* current_watch = nullptr;

// What the ContextVar holds here.
Ref value_of(PackageAttribute& variable) {
  PyObject* value = nullptr;
  checked(PyContextVar_Get(variable.get(), nullptr, &value));
  return Ref(value);
}

std::int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

}  // namespace

std::array<Tally, kTowardsNames.size()> tallies;
std::uint64_t refusals = 0;
int open_blocks = 0;
int open_ledgers = 0;

void Watch::begin() {
  running_ = true;
  exceptions_ = std::uncaught_exceptions();
  outer_ = std::exchange(current_watch, this);
  began_ = started_ = now();
}

void Watch::end() {
  current_watch = outer_;
  if (std::uncaught_exceptions() == exceptions_) {
    pause();
    finish();
  }
}

Watch* Watch::current() noexcept {
  return current_watch;
}

void Watch::pause() {
  spent_ += now() - began_;
}

void Watch::next(Ref entry) {
  if (entry_) {
    finish();
    spent_ = 0;
    started_ = now();
  }
  entry_ = std::move(entry);
  began_ = now();
}

void Watch::finish() {
  if (entry_ && entry_.get() != Py_None) {
    const Ref done(PyObject_CallMethod(entry_.get(), "finish", "LL",
                                       static_cast<long long>(started_),
                                       static_cast<long long>(spent_)));
    if (!done) {
      PyErr_WriteUnraisable(entry_.get());  // the crossing has succeeded all the same
    }
  }
}

void report(const Plan& plan, const Source& source, const Capabilities& target,
            const Policy& policy, const Request& request) {
  if (open_ledgers == 0 && (plan.view || value_of(copies_forbidden).get() != Py_True)) {
    return;
  }
  Watch* watch = Watch::current();
  if (watch != nullptr) {
    watch->pause();
  }
  const Ref told = plan_object(plan, source, target, policy, request);
  Ref entry(PyObject_CallOneArg(decided.get(), told.get()));
  if (!entry) {
    ++refusals;
    throw PythonError();
  }
  if (watch != nullptr) {
    watch->next(std::move(entry));
  }
}

void refused(PyObject* plan) {
  ++refusals;
  if (Watch::current() != nullptr) {
    (void)checked(PyObject_CallOneArg(was_refused.get(), plan));
  }
}

Ref policy_of_block() {
  return value_of(policy_of_context);
}

PyObject* count_blocks(PyObject* /*module*/, PyObject* changes) {
  int blocks = 0;
  int ledgers = 0;
  if (PyArg_ParseTuple(changes, "ii:count_blocks", &blocks, &ledgers) == 0) {
    return nullptr;
  }
  open_blocks += blocks;
  open_ledgers += ledgers;
  Py_RETURN_NONE;
}

PyObject* tallies_by_target(PyObject* /*module*/, PyObject* /*unused*/) {
  return guarded([]() -> PyObject* {
    Ref rows = checked(PyDict_New());
    for (std::size_t i = 0; i < tallies.size(); ++i) {
      const Tally& tally = tallies[i];
      const Ref row =
          checked(Py_BuildValue("(KKK)", tally.views, tally.copies, tally.bytes_copied));
      checked(PyDict_SetItemString(rows.get(), kTowardsNames[i], row.get()));
    }
    return Py_BuildValue("(NK)", rows.release(), refusals);
  });
}

}  // namespace dlbridge::python
