#include "targets/numpy_target.hpp"

#include "doors/array_method_door.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {

Ref NumPyTarget::made_of(ManagedTensor tensor) const {
  Ref base = wrap(std::move(tensor));
  const ManagedTensor& managed = managed_of(base.get());
  const DLTensor described = managed.tensor();
  const bool readonly = managed.readonly();
  return made_by("numpy.ndarray", NumPy::array_over(described, readonly, base.release()));
}

Ref NumPyTarget::itself(const Door& door, const Plan& plan) const {
  if (door.way == &kArrayMethodWay) {
    return array_made_for(door);
  }
  PyObject* array = owns(door) ? door.readable : door.object;
  return plan.view ? Ref::borrow(array) : Ref(NumPy::copy_of(array));
}

Ref NumPyTarget::deliver(Door& door, const Plan& plan, const Call& /*call*/) const {
  return made_of(detail::carry(door, plan).tensor);
}

const NumPyTarget kToNumPy;

}  // namespace dlbridge::python
