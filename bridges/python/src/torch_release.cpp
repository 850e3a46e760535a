#include "torch_release.hpp"

#include "dlbridge/python_lease.hpp"
#include "python.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute tensor_base("dlbridge._torch", "TENSOR_BASE");
destructor deallocate_by_torch = nullptr;

void deallocate(PyObject* tensor) {
  const ReleasesWait waiting;
  deallocate_by_torch(tensor);
}

}  // namespace

void watch_tensor_deallocation() {
  if (deallocate_by_torch != nullptr) {
    return;
  }
  // The base that every tensor class ends in: a static type, so its slot is inherited by none.
  auto* type = reinterpret_cast<PyTypeObject*>(tensor_base.get());
  if (deallocate_by_torch == nullptr) {
    deallocate_by_torch = type->tp_dealloc;
    type->tp_dealloc = deallocate;
  }
}

}  // namespace dlbridge::python
