// to_numpy(out=, async_=): into an array that is there, and copies from a device that go on while
// the caller does something else.

#include "arrival.hpp"

#include <memory>

#include "devices.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/transfer.hpp"
#include "incoming.hpp"
#include "ledger.hpp"
#include "trees.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute pending_array("dlbridge._arrival", "PendingArray");

/// dlbridge._core.Arriving: a copy under way, for one thread at a time.
struct ArrivingObject {
  PyObject_HEAD ArrivingTensor arriving;
  PyObject* out;  // the array to be returned, or null
  bool fill_out;  // `out` is filled by the processor once the copy is there
};

ArrivingObject& arriving_of(PyObject* self) {
  return *reinterpret_cast<ArrivingObject*>(self);
}

PyObject* is_done(PyObject* self, PyObject* /*unused*/) {
  return guarded([&] { return PyBool_FromLong(arriving_of(self).arriving.has_come() ? 1 : 0); });
}

void fill(PyObject* out, const ManagedTensor& tensor) {
  Incoming target(out, Incoming::Look{});
  Source source;
  constexpr Library kOurs{.name = "dlbridge", .object = "dlbridge.ManagedTensor"};
  describe(tensor, kOurs, source);
  Plan copying;
  copying.dtype = tensor.dtype();
  carry_out_into(copying, source, target.source().tensor);
}

PyObject* take(PyObject* self, PyObject* /*unused*/) {
  return guarded([&]() -> PyObject* {
    ArrivingObject& object = arriving_of(self);
    {
      const WithoutGil without_gil;
      object.arriving.wait();
    }
    ManagedTensor tensor = object.arriving.take();
    if (object.out == nullptr) {
      return array_over(std::move(tensor)).release();
    }
    if (object.fill_out) {
      fill(object.out, tensor);
    }
    return Py_NewRef(object.out);
  });
}

void end_abandoned(void* context) {
  delete static_cast<ArrivingTensor*>(context);
}

// Nobody waits for it any more, and nobody is to wait here: it ends when the device is done.
void abandon(ArrivingTensor arriving) noexcept {
  try {
    if (arriving.has_come()) {
      return;
    }
    auto left = std::make_unique<ArrivingTensor>(std::move(arriving));
    left->call_when_done([](void* context) { run_with_gil(context, end_abandoned); }, left.get());
    (void)left.release();
  } catch (...) {  // the device failed: its work is over, and what is left ends here
  }
}

void deallocate(PyObject* self) {
  const KeepError keep;
  ArrivingObject& object = arriving_of(self);
  abandon(std::move(object.arriving));
  object.arriving.~ArrivingTensor();
  Py_XDECREF(object.out);
  PyObject_Free(self);
}

PyMethodDef methods[] = {
    {"done", is_done, METH_NOARGS, "done()\n--\n\nWhether it has arrived."},
    {"take", take, METH_NOARGS, "take()\n--\n\nWaits for it, and gives the array out: once."},
    {nullptr, nullptr, 0, nullptr}};

PyTypeObject arriving_type = [] {
  PyTypeObject type{};
  Py_SET_REFCNT(&type, 1);
  type.tp_name = "dlbridge._core.Arriving";
  type.tp_basicsize = sizeof(ArrivingObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  type.tp_dealloc = deallocate;
  type.tp_methods = methods;
  return type;
}();

[[noreturn]] void wrong_out(const std::string& what) {
  raise(PyExc_ValueError,
        "out must be a writable numpy.ndarray of the result's shape and dtype: " + what);
}

/// The array of `out=`, held against what is to go into it.
class Out {
 public:
  Out(PyObject* array, const Source& source, const Plan& plan) : array_(array) {
    NumPy::describe(array, described_);
    const Conditions conditions = described_.traits.conditions;
    if (conditions.has(Condition::kReadOnly)) {
      wrong_out("it is read-only");
    }
    if (!conditions.empty()) {
      wrong_out("it is masked, of the other byte order, or of a dtype that DLPack lacks");
    }
    const DLTensor& into = described_.tensor;
    const DLTensor& from = source.tensor;
    const Ref wanted = shape_tuple(from);
    const Ref found = shape_tuple(into);
    const int same = PyObject_RichCompareBool(wanted.get(), found.get(), Py_EQ);
    checked(same);
    if (same == 0) {
      PyErr_Format(PyExc_ValueError,
                   "out must be a writable numpy.ndarray of the result's shape and dtype: it is of "
                   "shape %S, and the result of shape %S",
                   found.get(), wanted.get());
      throw PythonError();
    }
    if (DType(into.dtype) != plan.dtype) {
      wrong_out("it is of dtype " + to_string(DType(into.dtype)) + ", and the result is " +
                to_string(plan.dtype) + "; use dtype= to cast");
    }
    require_separate(into, from);
    if (plan_refuses_overlap()) {
      wrong_out("its elements share memory");
    }
  }

  [[nodiscard]] const DLTensor& tensor() const { return described_.tensor; }
  [[nodiscard]] ManagedTensor acquire() const { return NumPy::acquire(array_, described_); }
  [[nodiscard]] bool packed() const { return is_c_contiguous(described_.tensor); }

 private:
  // First and last byte of what the strides reach.
  static std::pair<std::uintptr_t, std::uintptr_t> reach(const DLTensor& tensor) {
    auto first = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
    auto last = first;
    const std::int64_t itemsize = DType(tensor.dtype).itemsize();
    for (std::int32_t i = 0; i < tensor.ndim && tensor.strides != nullptr; ++i) {
      const std::int64_t step = (tensor.shape[i] - 1) * tensor.strides[i] * itemsize;
      (step < 0 ? first : last) += static_cast<std::uintptr_t>(step);
    }
    return {first, last + static_cast<std::uintptr_t>(itemsize) - 1};
  }

  static void require_separate(const DLTensor& into, const DLTensor& from) {
    if (element_count(into) == 0 || !Device(from.device).host_accessible() ||
        from.data == nullptr) {
      return;
    }
    const auto [a, b] = reach(into);
    const auto [c, d] = reach(from);
    if (a <= d && c <= b) {
      wrong_out("it shares memory with the source");
    }
  }

  // The planner knows best which elements share memory.
  [[nodiscard]] bool plan_refuses_overlap() const {
    const Policy policy = Policy::host().with(Field::kOverlap, Ruling::kRefuse);
    const Plan decided = plan(described_, managed_tensor_capabilities(), policy);
    return decided.refused.has(Condition::kOverlap);
  }

  PyObject* array_;
  Source described_;
};

// Into `out`, and there when this returns.
Ref into_out(Incoming& incoming, const Plan& decided, const Capabilities& target, const Call& call,
             PyObject* out) {
  const Out there(out, incoming.source(), decided);
  if (decided.has(Step::kDensify) || decided.carrier == Carrier::kProducer) {
    fill(out, incoming.carry(decided, target, call));
    return Ref::borrow(out);
  }
  const Device device(incoming.source().tensor.device);
  {
    const WithoutGil without_gil;
    if (device.type != kDLCPU && device.host_accessible()) {
      wait_for_host_memory(incoming.source());
    }
    carry_out_into(decided, incoming.source(), there.tensor());
  }
  return Ref::borrow(out);
}

Ref pending(const Ref& arriving, const Ref& array) {
  return checked(PyObject_CallFunctionObjArgs(pending_array.get(),
                                              arriving ? arriving.get() : Py_None,
                                              array ? array.get() : Py_None, nullptr));
}

Ref begun(Incoming& incoming, const Plan& decided, PyObject* out) {
  ManagedTensor target;
  bool fill_out = false;
  if (out != Py_None) {
    const Out there(out, incoming.source(), decided);
    DeviceRuntime* runtime = runtime_for(incoming.source().tensor.device.device_type);
    const auto place = runtime->locate(there.tensor().data);
    fill_out = !there.packed() || !place || !place->host_accessible();
    if (!fill_out) {
      target = there.acquire();
    }
  }
  ManagedTensor owner = incoming.acquire();
  const Ref object =
      checked(reinterpret_cast<PyObject*>(PyObject_New(ArrivingObject, &arriving_type)));
  ArrivingObject& held = arriving_of(object.get());
  new (&held.arriving) ArrivingTensor();
  held.out = out == Py_None ? nullptr : Py_NewRef(out);
  held.fill_out = fill_out;
  held.arriving = begin_to_host(decided, incoming.source(), std::move(owner), std::move(target));
  return pending(object, Ref());
}

}  // namespace

void add_arriving_type() {
  checked(PyType_Ready(&arriving_type));
}

Ref to_numpy_arriving(PyObject* x, const Call& given, PyObject* out, bool async) {
  Call call = given;
  const SourceKind kind = kind_of(x);
  if (kind == SourceKind::kNothing) {
    if (Ref tree = map_tree(x, [&](PyObject* leaf) {
          if (out != Py_None) {
            raise(PyExc_TypeError, "out= takes the result of one tensor, and this is a tree");
          }
          return to_numpy_arriving(leaf, call, out, async);
        })) {
      return tree;
    }
  }
  if (out != Py_None) {
    if (!NumPy::is_array(out)) {
      raise(PyExc_TypeError,
            std::string("out must be a numpy.ndarray, not ") + Py_TYPE(out)->tp_name);
    }
    if (call.request.copy_was_argument && call.policy.copy() == CopyRule::kNever) {
      raise(PyExc_ValueError, "out= asks for a copy, and copy=False forbids one; leave one out");
    }
    call.policy = call.policy.with_copy(CopyRule::kAlways);
  }
  Incoming incoming(x, kind, {.towards_torch = false, .stream = call.stream});
  const Capabilities& target = NumPy::capabilities(incoming.source(), call.request);
  const Plan decided = decide(incoming, target, call);
  const bool goes_on =
      async && decided.carrier == Carrier::kRuntime && !decided.has(Step::kDensify);
  if (out == Py_None && !goes_on) {
    if (incoming.kind() == SourceKind::kNumPy && decided.empty()) {
      return pending(Ref(), Ref::borrow(x));
    }
  }
  crossing(Towards::kNumPy, decided, incoming.source(), target, call.policy, call.request);
  if (goes_on) {
    return begun(incoming, decided, out);
  }
  if (out == Py_None) {
    return pending(Ref(), array_over(incoming.carry(decided, target, call)));
  }
  Ref filled = into_out(incoming, decided, target, call, out);
  return async ? pending(Ref(), filled) : std::move(filled);
}

}  // namespace dlbridge::python
