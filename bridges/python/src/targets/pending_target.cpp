#include "targets/pending_target.hpp"

#include <utility>

#include "dlbridge/arriving_tensor.hpp"
#include "types/arriving_type.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute pending_array("dlbridge._arrival", "PendingArray");

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
    if (!checked_truth(PyObject_RichCompareBool(wanted.get(), found.get(), Py_EQ))) {
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
    if (overlaps_itself(into)) {
      wrong_out("its elements share memory");
    }
  }

  [[nodiscard]] const DLTensor& tensor() const { return described_.tensor; }
  [[nodiscard]] ManagedTensor acquire() const { return NumPy::acquire(array_, described_); }
  [[nodiscard]] bool packed() const { return is_c_contiguous(described_.tensor); }

 private:
  static void require_separate(const DLTensor& into, const DLTensor& from) {
    if (element_count(into) == 0 || !Device(from.device).host_accessible() ||
        from.data == nullptr) {
      return;
    }
    const auto written = extent_of(into);
    const auto read = extent_of(from);
    if (written && read && written->first < read->end && read->first < written->end) {
      wrong_out("it shares memory with the source");
    }
  }

  PyObject* array_;
  Source described_;
};

Ref pending(PyObject* arriving, PyObject* array) {
  return checked(PyObject_CallFunctionObjArgs(pending_array.get(), arriving, array, nullptr));
}

}  // namespace

bool is_pending(PyObject* object) {
  return reinterpret_cast<PyObject*>(Py_TYPE(object)) == pending_array.get();
}

Call call_into(PyObject* out, const Call& call) {
  if (!NumPy::is_array(out)) {
    raise_other_type("out must be a numpy.ndarray", out);
  }
  if (call.request.copy_was_argument && call.policy.copy() == CopyRule::kNever) {
    raise(PyExc_ValueError, "out= asks for a copy, and copy=False forbids one; leave one out");
  }
  Call copying = call;
  copying.policy = call.policy.with_copy(CopyRule::kAlways);
  return copying;
}

Ref PendingTarget::there(Ref array) const {
  return gives_ == Gives::kPending ? pending(Py_None, array.get()) : std::move(array);
}

Ref PendingTarget::itself(const Door& door, const Plan& plan) const {
  return there(kToNumPy.itself(door, plan));
}

Ref PendingTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  // A cast that has to be checked is the host's: it cannot be begun only.
  const bool checks = plan.has(Step::kCast) && !always_fits(door.source.tensor.dtype, plan.dtype);
  if (gives_ != Gives::kArray && plan.leg_count == 1 && plan.route[0].who == Who::kRuntime &&
      !checks) {
    return begun(door, plan);
  }
  Ref array = Ref::borrow(out_);
  if (out_ == Py_None) {
    array = kToNumPy.made_of(detail::carry(door, plan).tensor);
  } else {
    const Out there(out_, door.source, plan);
    (void)detail::carry(door, plan, {&there.tensor()});
  }
  return there(std::move(array));
}

Ref PendingTarget::begun(Door& door, const Plan& plan) const {
  ManagedTensor target;
  bool fill_out = false;
  if (out_ != Py_None) {
    const Out there(out_, door.source, plan);
    DeviceRuntime* runtime = runtime_for(door.source.tensor.device.device_type);
    const auto place = runtime->locate(there.tensor().data);
    fill_out = !there.packed() || !place || !place->host_accessible();
    if (!fill_out) {
      target = there.acquire();
    }
  }
  ManagedTensor owner = door.acquire();
  const Ref object = new_arriving(out_ == Py_None ? nullptr : out_, fill_out);
  set_arriving(object.get(), begin_to_host(plan, door.source, std::move(owner), std::move(target)));
  return pending(object.get(), Py_None);
}

}  // namespace dlbridge::python
