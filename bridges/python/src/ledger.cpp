#include "ledger.hpp"

#include <frameobject.h>  // before CPython 3.11 Python.h lacks PyFrame_GetBack

#include <algorithm>
#include <chrono>
#include <concepts>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "devices/devices.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute of_all_threads("dlbridge.ledger.blocks", "of_all_threads");
PackageAttribute of_context("dlbridge.ledger.blocks", "of_context");
PackageAttribute forbid("dlbridge.ledger.blocks", "forbid");
PackageAttribute policy_of_context("dlbridge.ledger.blocks", "policy_of_context");
PackageAttribute copies_forbidden("dlbridge.ledger.blocks", "copies_forbidden");
PackageAttribute conversion_refused("dlbridge._errors", "ConversionRefused");
PackageAttribute tally_type("dlbridge.ledger.counts", "Tally");
PackageAttribute stats_type("dlbridge.ledger.counts", "Stats");

// In the order of Towards.
constinit std::array<Name, kTowardsCount> towards_names{Name("numpy"),    Name("torch"),
                                                        Name("dlbridge"), Name("capsule"),
                                                        Name("process"),  Name("other")};

thread_local Watch* current_watch = nullptr;
thread_local const Handing* handing = nullptr;

// The lists of the blocks that are open here, the innermost last; those that have ended are empty.
Ref blocks_in(PackageAttribute& variable) {
  PyObject* blocks = nullptr;
  checked(PyContextVar_Get(variable.get(), nullptr, &blocks));
  return Ref(blocks);
}

// Whether it is in a tuple, which may be null.
bool is_among(const Ref& tuple, PyObject* item) {
  const Py_ssize_t count = tuple ? PyTuple_GET_SIZE(tuple.get()) : 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (PyTuple_GET_ITEM(tuple.get(), i) == item) {
      return true;
    }
  }
  return false;
}

// What the innermost block here holds, of those that have not ended and were not open `before`;
// None where there is none.
Ref held_in(PackageAttribute& variable, const Ref& before = {}) {
  const Ref blocks = blocks_in(variable);
  for (Py_ssize_t i = PyTuple_GET_SIZE(blocks.get()); i-- > 0;) {
    PyObject* held = PyTuple_GET_ITEM(blocks.get(), i);
    if (PyList_GET_SIZE(held) != 0 && !is_among(before, held)) {
      return Ref::borrow(PyList_GET_ITEM(held, 0));
    }
  }
  return Ref::borrow(Py_None);
}

// A view that nothing is said of but what and where, and its Plan.
struct ToldView {
  std::string object;
  std::string result;
  DType dtype;
  DType result_dtype;
  bool writable = false;
  std::vector<std::int64_t> shape;
  Ref plan;
};

// The Plan in words. Of plain views on the host it is remembered: a loop crosses the same again and
// again, and a Plan takes ten times as long to put into words as a view to be made.
Ref plan_to_tell(const Plan& plan, const Source& source, const Capabilities& target,
                 const Policy& policy, const Request& request) {
  const DLTensor& tensor = source.tensor;
  if (!plan.view || plan.itself || !plan.empty() || !plan.noted.empty() ||
      Device(tensor.device) != Device{} || tensor.dtype.bits == 0) {
    return plan_object(plan, source, target, policy, request);
  }
  // Of the process: it may be asked for after the interpreter's end, and is not let go of there.
  static auto& remembered = *new std::array<ToldView, 32>();
  const std::span<const std::int64_t> shape(tensor.shape, static_cast<std::size_t>(tensor.ndim));
  std::size_t place = tensor.dtype.code * 7U + tensor.dtype.bits;
  for (const std::int64_t size : shape) {
    place = place * 31 + static_cast<std::size_t>(size);
  }
  ToldView& told = remembered[place % remembered.size()];
  const std::string_view object = source.traits.words().object;
  const std::string_view result = target.result;
  if (!told.plan || told.dtype != DType(tensor.dtype) || told.result_dtype != plan.dtype ||
      told.writable != plan.writable || told.object != object || told.result != result ||
      !std::equal(shape.begin(), shape.end(), told.shape.begin(), told.shape.end())) {
    told = {std::string(object),
            std::string(result),
            DType(tensor.dtype),
            plan.dtype,
            plan.writable,
            {shape.begin(), shape.end()},
            plan_object(plan, source, target, policy, request)};
  }
  return Ref::borrow(told.plan.get());
}

Ref count_of(std::uint64_t count) {
  return checked(PyLong_FromUnsignedLongLong(count));
}

// Of a class of named tuples, at a tenth of what calling it takes.
template <std::same_as<Ref>... Value>
Ref named_tuple(PackageAttribute& of, Value... values) {
  auto* type = reinterpret_cast<PyTypeObject*>(of.get());
  Ref made = checked(type->tp_alloc(type, sizeof...(values)));
  Py_ssize_t place = 0;
  (PyTuple_SET_ITEM(made.get(), place++, values.release()), ...);
  return made;
}

// A crossing belongs to the line of the innermost frame outside these: the user's own.
constexpr std::array<std::string_view, 7> kLibraries{"dlbridge", "torch",      "numpy",    "jax",
                                                     "jaxlib",   "contextlib", "functools"};
constinit Name globals_of_frame("f_globals");
constinit Name name_of_module("__name__");

// Which of these a frame is of; no text where it is the user's.
std::string_view library_of_frame(const Ref& frame) {
  const Ref globals = checked(PyObject_GetAttr(frame.get(), globals_of_frame.get()));
  PyObject* module = PyDict_GetItemWithError(globals.get(), name_of_module.get());
  if (module == nullptr || !PyUnicode_Check(module)) {
    check_error();
    return {};
  }
  const char* text = PyUnicode_AsUTF8(module);
  if (text == nullptr) {  // a name that no library has
    forget_error();
    return {};
  }
  const std::string_view name(text);
  const auto* found = std::ranges::find(kLibraries, name.substr(0, name.find('.')));
  return found == kLibraries.end() ? std::string_view() : *found;
}

Ref frame_below(const Ref& frame) {
  auto* of = reinterpret_cast<PyFrameObject*>(frame.get());
  return Ref(reinterpret_cast<PyObject*>(PyFrame_GetBack(of)));
}

// Whose line a crossing is.
struct Place {
  Ref file;
  Ref line;
  Ref function;
};

// From that frame on: the user's, or the library's whose thread it is; nowhere without Python.
Place place_from(Ref frame) {
  Ref of_library;
  while (frame) {
    const std::string_view library = library_of_frame(frame);
    if (library.empty()) {
      break;
    }
    Ref below = frame_below(frame);
    if (!of_library && library != "dlbridge") {
      of_library = std::move(frame);
    }
    frame = std::move(below);
  }
  const Ref& found = frame ? frame : of_library;
  if (!found) {
    return {text_object(""), checked(PyLong_FromLong(0)), text_object("")};
  }
  auto* of = reinterpret_cast<PyFrameObject*>(found.get());
  const Ref owner(reinterpret_cast<PyObject*>(PyFrame_GetCode(of)));
  const auto* code = reinterpret_cast<const PyCodeObject*>(owner.get());
  return {Ref::borrow(code->co_filename), checked(PyLong_FromLong(PyFrame_GetLineNumber(of))),
          Ref::borrow(code->co_name)};
}

Ref running_frame() {
  return Ref::borrow(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
}

// Calls visit(record) for each ledger that is to be told what crosses now.
template <typename Visit>
void for_each_record(Visit&& visit) {
  const Handing::Before& before = Handing::before();
  const auto visit_each = [&](PyObject* records, const Ref& but) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); ++i) {
      if (!is_among(but, PyList_GET_ITEM(records, i))) {
        visit(Ref::borrow(PyList_GET_ITEM(records, i)));
      }
    }
  };
  const Ref here = blocks_in(of_context);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(here.get()); ++i) {
    PyObject* block = PyTuple_GET_ITEM(here.get(), i);
    if (!is_among(before.ledgers, block)) {
      visit_each(block, {});  // of one that has ended, none
    }
  }
  visit_each(of_all_threads.get(), before.everywhere);
}

bool is_heard() {
  bool heard = false;
  for_each_record([&](const Ref& /*record*/) { heard = true; });
  return heard;
}

// Writes a crossing down that has succeeded, or was refused, where a ledger is open here: as one
// object, since what is kept has Python collect garbage.
void tell_ledgers(PyObject* plan, std::int64_t began, const Ref& nanoseconds) {
  Ref told;  // found for the first that is to be told
  for_each_record([&](const Ref& record) {
    if (!told) {
      const Place place = place_from(running_frame());
      const Ref start = checked(PyLong_FromLongLong(began));
      const Ref thread = checked(PyLong_FromUnsignedLong(PyThread_get_thread_ident()));
      told = checked(PyTuple_Pack(7, plan, place.file.get(), place.line.get(), place.function.get(),
                                  start.get(), nanoseconds.get(), thread.get()));
    }
    (void)checked(PyObject_CallOneArg(record.get(), told.get()));
  });
}

std::int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

}  // namespace

std::array<Tally, kTowardsCount> tallies;
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
    spent_ += now() - began_;
    finish();
  }
}

Watch* Watch::current() noexcept {
  return current_watch;
}

void Watch::settle() {
  if (Watch* watch = current()) {
    watch->spent_ += now() - watch->began_;
    if (watch->plan_) {
      watch->finish();
      watch->plan_ = {};
      watch->spent_ = 0;
      watch->started_ = now();
    }
  }
}

void Watch::next(Ref plan) {
  plan_ = std::move(plan);
  began_ = now();
}

void Watch::finish() {
  if (plan_ && !succeeds([&] {
        tell_ledgers(plan_.get(), started_, checked(PyLong_FromLongLong(spent_)));
      })) {
    PyErr_WriteUnraisable(plan_.get());  // the crossing has succeeded all the same
  }
}

// It counts as an open block with a ledger: so a crossing asks for all at once.
Handing::Handing() : outer_(handing) {
  if (any_block_open()) {
    before_ = {blocks_in(policy_of_context), blocks_in(of_context),
               checked(PySequence_Tuple(of_all_threads.get()))};
  }
  ++open_blocks;
  ++open_ledgers;
  handing = this;
}

Handing::~Handing() {
  --open_blocks;
  --open_ledgers;
  handing = outer_;
}

const Handing::Before& Handing::before() noexcept {
  static const Before nothing;
  return handing == nullptr ? nothing : handing->before_;
}

bool report(const Plan& plan, const Source& source, const Capabilities& target,
            const Policy& policy, const Request& request) {
  const bool forbidden = !plan.view && held_in(copies_forbidden).get() == Py_True;
  const bool counts = handing == nullptr;
  if (!forbidden && (counts ? open_ledgers == 0 : !is_heard())) {
    return counts;
  }
  Watch::settle();
  const Ref told = plan_to_tell(plan, source, target, policy, request);
  if (forbidden) {
    (void)PyObject_CallOneArg(forbid.get(), told.get());  // which raises
    throw PythonError();
  }
  if (Watch* watch = Watch::current()) {
    watch->next(Ref::borrow(told.get()));
  }
  return counts;
}

void uncount(Towards towards, const Plan& plan) noexcept {
  const unsigned one = handing == nullptr ? 1 : 0;  // of what a row makes cross nothing was counted
  Tally& tally = tallies[static_cast<std::size_t>(towards)];
  (plan.view ? tally.views : tally.copies) -= one;
  tally.bytes_copied -= one * static_cast<std::uint64_t>(plan.view ? 0 : plan.bytes_copied);
}

// What a row catches is not the caller's.
void refused(PyObject* plan) {
  refusals += handing == nullptr ? 1 : 0;
  if (Watch::current() != nullptr) {
    tell_ledgers(plan, now(), Ref::borrow(Py_None));
  }
}

void refused_by_row() {
  KeepError raised;
  raised.normalise();
  if (checked_truth(PyObject_IsInstance(raised.value(), conversion_refused.get()))) {
    refused(checked(PyObject_GetAttrString(raised.value(), "plan")).get());
  }
}

Ref refused_in_python(PyObject* plan) {
  refused(plan);
  return Ref::borrow(Py_None);
}

Ref caller() {
  Ref frame = running_frame();  // of who asks, which is no user
  if (Ref below = frame ? frame_below(frame) : Ref()) {
    frame = std::move(below);
  }
  const Place place = place_from(std::move(frame));
  return checked(PyTuple_Pack(3, place.file.get(), place.line.get(), place.function.get()));
}

Ref policy_of_block() {
  return held_in(policy_of_context, Handing::before().policies);
}

Ref count_blocks(ArgumentTuple changes) {
  int blocks = 0;
  int ledgers = 0;
  changes.read("ii:count_blocks", &blocks, &ledgers);
  open_blocks += blocks;
  open_ledgers += ledgers;
  return Ref::borrow(Py_None);
}

Ref stats(PyObject* road) {
  drain_releases();
  Tally all;
  Ref by_target = checked(PyDict_New());
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    const Tally& tally = tallies[i];
    all.views += tally.views;
    all.copies += tally.copies;
    all.bytes_copied += tally.bytes_copied;
    const Ref row = named_tuple(tally_type, count_of(tally.views), count_of(tally.copies),
                                count_of(tally.bytes_copied));
    checked(PyDict_SetItem(by_target.get(), towards_names[i].get(), row.get()));
  }
  const auto alive = static_cast<std::uint64_t>(live_managed_tensors());
  return named_tuple(stats_type, count_of(all.views + all.copies), count_of(all.views),
                     count_of(all.copies), count_of(refusals), count_of(all.bytes_copied),
                     std::move(by_target), count_of(alive), Ref::borrow(road), runtimes_in_words());
}

}  // namespace dlbridge::python
