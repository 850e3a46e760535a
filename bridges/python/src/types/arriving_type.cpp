#include "types/arriving_type.hpp"

#include <memory>

#include "devices/devices.hpp"
#include "dlbridge/carry.hpp"
#include "dlbridge/python_lease.hpp"
#include "targets/numpy_target.hpp"

namespace dlbridge::python {
namespace {

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
  constexpr Library kOurs{.name = "dlbridge", .object = "dlbridge.ManagedTensor"};
  Source from;
  describe(tensor, kOurs, from);
  Source into;
  NumPy::describe(out, into);
  carry_out_into(Leg{Who::kEngine, 0, tensor.dtype(), Device{}}, from, into.tensor);
}

PyObject* take(PyObject* self, PyObject* /*unused*/) {
  return guarded([&] {
    ArrivingObject& object = arriving_of(self);
    {
      const WithoutGil without_gil;
      object.arriving.wait();
    }
    ManagedTensor tensor = object.arriving.take();
    if (object.out == nullptr) {
      return kToNumPy.made_of(std::move(tensor));
    }
    if (object.fill_out) {
      fill(object.out, tensor);
    }
    return Ref::borrow(object.out);
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
  PyTypeObject type = type_of_ours("dlbridge._core.Arriving", sizeof(ArrivingObject), deallocate);
  type.tp_methods = methods;
  return type;
}();

}  // namespace

void add_arriving_type() {
  checked(PyType_Ready(&arriving_type));
}

Ref new_arriving(PyObject* out, bool fill_out) {
  Ref object = checked(reinterpret_cast<PyObject*>(PyObject_New(ArrivingObject, &arriving_type)));
  ArrivingObject& held = arriving_of(object.get());
  new (&held.arriving) ArrivingTensor();
  held.out = Py_XNewRef(out);
  held.fill_out = fill_out;
  return object;
}

void set_arriving(PyObject* object, ArrivingTensor arriving) {
  arriving_of(object).arriving = std::move(arriving);
}

}  // namespace dlbridge::python
